"""The comparison with PyTorch: both learn the same, in the same arithmetic."""

import jax
import numpy as np
import pytest
from helpers import largest

from benchmarks.with_torch.ours import OwnTraining, Setting


@pytest.mark.heavy
def test_pytorch_learns_the_same():
    """The loss over some AdamW steps, and every weight after them."""
    pytest.importorskip("torch")
    from benchmarks.with_torch.theirs import TorchTraining

    jax.config.update("jax_enable_x64", False)
    try:
        setting = Setting(2, 3, 6, 16, heads=2, vocabulary=11)
        ours = OwnTraining(setting)
        torch = TorchTraining(
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates(), False),
        )
        steps = 5
        np.testing.assert_allclose(ours.losses(steps), torch.losses(steps), rtol=1e-5)
        found, expected = ours.state(), torch.state()
    finally:
        jax.config.update("jax_enable_x64", True)
    assert set(found) == set(expected)
    for name, weight in found.items():
        assert largest(weight, expected[name]) < 1e-5, name
        moved = np.abs(weight - ours.initial_weights[name]).max()
        assert moved > 1e-5, name
