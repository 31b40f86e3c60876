import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("loss", [tasks.CrossEntropy(), tasks.InstanceCrossEntropy()])
def test_the_cross_entropy_is_that_of_numpy(loss):
    logits, targets = RANDOM.normal(size=(4, 6, 3)), RANDOM.integers(-1, 3, (4, 6))
    targets[0] = logits[0].argmax(-1)

    @jax.jit
    def measured(y, targets):
        gradient = jax.grad(lambda y: loss.measure(y, targets)["loss"].value)(y)
        return loss.measure(y, targets), gradient

    figures, gradient = jax.device_get(measured(logits, targets))
    means = {name: total / count for name, (total, count) in figures.items()}
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted, right = targets >= 0, logits.argmax(-1) == targets
    chosen = np.take_along_axis(probabilities, np.maximum(targets, 0)[..., None], -1)[..., 0]
    assert means["loss"] == pytest.approx(-np.log(chosen)[counted].mean())
    assert figures["loss"].count == counted.sum() < targets.size
    assert means["accuracy"] == pytest.approx(right[counted].mean())
    if isinstance(loss, tasks.InstanceCrossEntropy):
        exact = (right | ~counted).all(1)
        assert means["exact_match"] == pytest.approx(exact.mean()) != 0
    expected = (probabilities - np.eye(3)[targets]) * counted[..., None] / counted.sum()
    np.testing.assert_allclose(gradient, expected, atol=1e-12)
    figures, gradient = measured(logits, np.full((4, 6), -1))
    assert figures["loss"].value == 0 and not np.any(gradient)


def test_the_relative_error_weighs_the_points():
    outputs, targets = RANDOM.normal(size=(2, 3, 5, 2))
    points, weights = np.arange(5.0)[:, None], RANDOM.random(5)
    error = jax.jit(lambda x: tasks.RelativeError().measure(outputs, x)["loss"].value)
    for given, w in ((weights, weights), (None, np.ones(5))):
        domain = ide.TokenDomain(*jax.device_put((points, given)))
        square = [(w[None, :, None] * x**2).sum((1, 2)) for x in (outputs - targets, targets)]
        expected = np.sqrt(square[0] / square[1]).mean()
        np.testing.assert_allclose(error(ide.Field(targets, domain)), expected, rtol=1e-12)
    with pytest.raises(ide.InputError, match=r"outputs of shape \(3, 5, 2\), and the targets"):
        error(targets[:, 1:])


def test_each_step_of_a_roll_out_has_noise_of_its_own(monkeypatch):
    keys = []

    def with_outputs(self, model, batch, key):
        keys.append(key)
        return tasks.Loss(0.0, {}, 1.0, {}), batch.inputs

    monkeypatch.setattr(tasks.RolloutError, "with_outputs", with_outputs)
    tasks.RolloutError()(None, tasks.Batch(0, [0, 0]), jax.random.key(0))
    assert keys[0] != keys[1]
