import jax
import pytest


@pytest.fixture
def optimised():
    """Compiled as users compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
