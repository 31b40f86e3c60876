"""Settings for programs that run little: JAX optimises them little, so that compiling, which
takes most of the time of tests and short tutorials, takes less."""

from collections.abc import Mapping
from importlib import metadata


# What is set below is that of these versions.
KNOWN = metadata.version("jaxlib").startswith("0.10.")


def quick_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process, with those settings. JAX reads them when it is imported."""
    variables = {**environment, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    # jaxlib 0.10 prints a false alarm for each program that it reads from the cache.
    variables["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # These emitters take a third of the time of the others, a module that is not split a tenth
    # less. XLA ends a process for a flag that it does not know, as later versions would.
    if KNOWN:
        flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        variables["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}".strip()
    return variables
