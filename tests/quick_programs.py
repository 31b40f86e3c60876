"""Settings for programs that run little: JAX optimises them little, so that compiling, which
takes most of the time of tests and short tutorials, takes less."""

import functools as ft
import itertools
from collections.abc import Mapping
from importlib import metadata


# What is set below is that of these versions.
KNOWN = metadata.version("jaxlib").startswith("0.10.")


def quick_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process, with those settings. JAX reads them when it is imported."""
    changed = {**environment, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    # jaxlib 0.10 prints a false alarm for each program that it reads from the cache.
    changed["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # These emitters take a third of the time of the others, a module that is not split a tenth
    # less. XLA ends a process for a flag that it does not know, as later versions would.
    if KNOWN:
        own = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        changed["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {own}".strip()
    return changed


def share_contexts() -> None:
    """JAX makes a context of MLIR for each program, in a sixth of the time that a small program
    takes. After this a hundred programs share one; it keeps what they are made of."""
    if not KNOWN:
        return
    from jax._src.interpreters import mlir

    make, numbers = mlir.make_ir_context, itertools.count()
    context_of = ft.lru_cache(1)(lambda hundred: make())

    def context():
        # What is compiled in the middle of another program would become a part of it.
        inside = mlir.ir.Context.current is not None
        return make() if inside else context_of(next(numbers) // 100)

    mlir.make_ir_context = context
