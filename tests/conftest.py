import gc
import os
import sys
from importlib import metadata
from pathlib import Path

import jaxtyping
import pytest


# Compiling takes most of the time, so programs are optimised little; the heavy tests of cost
# switch the optimisations on for themselves. Programs are kept for the other workers, the
# scripts that tests run, and the next run.
os.environ |= {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    # jaxlib 0.10 prints a false alarm for each program that it reads from the cache.
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_COMPILATION_CACHE_DIR": str(Path(__file__).parent.parent / ".pytest_cache/compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
# These emitters take a third of the time of the others, a module that is not split a tenth
# less. XLA ends a process for a flag that it does not know, as later versions would.
if metadata.version("jaxlib").startswith("0.10."):
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()

import jax


jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many objects that live long; looking for garbage among them is slow.
gc.set_threshold(100_000, 50, 100)


def pytest_configure(config):
    if config.getoption("--types"):
        if "ide_transformer" in sys.modules:
            raise pytest.UsageError(
                "--types: pass no folder with a conftest.py that has the package."
            )
        jaxtyping.install_import_hook("ide_transformer", "beartype.beartype")


def pytest_addoption(parser):
    parser.addoption(
        "--thorough", action="store_true", help="all cases of tests that otherwise take some"
    )
    parser.addoption(
        "--types", action="store_true", help="check the shapes and types in annotations too"
    )


def pytest_collection_modifyitems(config, items):
    """Tests that are marked `thorough` run with `--thorough` only."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    if config.getoption("--thorough"):
        return
    selected, dropped = [], []
    for item in items:
        (dropped if item.get_closest_marker("thorough") else selected).append(item)
    config.hook.pytest_deselected(items=dropped)
    items[:] = selected


@pytest.fixture
def thorough(request):
    """Whether all cases are wanted of a test that has hundreds."""
    return request.config.getoption("--thorough")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def no_figures(monkeypatch):
    """Runs draw no figures, which would take longer than to train the smallest ones."""
    monkeypatch.setattr("ide_transformer.training.results.plot_run", lambda *_: None)


@pytest.fixture
def unchecked():
    """Without the checks of annotations, which would speak before the package does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """A process that keeps the programs of all tests runs out of memory maps, of which
    Linux allows 65,530. Clearing them costs compiling what they share once more; counting
    them takes too long to do it after each test."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > 30_000:
        jax.clear_caches()
