from pathlib import Path

import jax
import jaxtyping
import pytest


# Shapes and types in annotations are checked while the tests run; this has to come before
# the package is imported.
jaxtyping.install_import_hook("ide_transformer", "beartype.beartype")

jax.config.update("jax_enable_x64", True)
# Compiling takes most of the time of these tests; the heavy ones and the runs of scripts
# see fully optimised programs.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def unchecked():
    """What a user sees: without the checks of annotations, which would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def forget_what_is_compiled():
    """A process that keeps the programs of all tests runs out of memory maps, of which
    Linux allows 65,530; but what they share is compiled again after each clearing."""
    yield
    maps = Path("/proc/self/maps")
    if not maps.exists() or maps.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()
