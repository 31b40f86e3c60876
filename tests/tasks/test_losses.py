import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks


RANDOM = np.random.default_rng(0)
OUTPUTS, TARGETS = RANDOM.normal(size=(2, 5, 8, 2))


def test_the_relative_error_is_that_of_each_sample():
    figures = tasks.RelativeError().measure(jnp.asarray(OUTPUTS), jnp.asarray(TARGETS))
    errors = [
        np.sqrt(((u - v) ** 2).sum() / (v**2).sum())
        for u, v in zip(OUTPUTS, TARGETS, strict=True)
    ]
    assert set(figures) == {"loss"}
    assert float(figures["loss"].value) == pytest.approx(np.mean(errors), rel=1e-12)


def test_means_of_batches_add_up():
    def measure(samples):
        outputs, targets = jnp.asarray(OUTPUTS[samples]), jnp.asarray(TARGETS[samples])
        return tasks.RelativeError().measure(outputs, targets)

    parts = measure(slice(0, 3)), measure(slice(3, 5))
    total = jax.tree.map(jnp.add, *parts)["loss"].value
    assert float(total) == pytest.approx(float(measure(slice(None))["loss"].value), rel=1e-12)
    assert float(tasks.Mean(jnp.zeros(()), 0).value) == 0


def test_an_exact_output_has_a_gradient():
    def error(outputs):
        return tasks.RelativeError().measure(outputs, jnp.asarray(TARGETS))["loss"].value

    assert error(jnp.asarray(TARGETS)) == 0
    assert jnp.all(jnp.isfinite(jax.grad(error)(jnp.asarray(TARGETS))))


def test_outputs_of_another_shape_are_refused():
    message = r"outputs of shape \(5, 8, 1\), and the targets have \(5, 8, 2\)"
    with pytest.raises(ide.InputError, match=message):
        tasks.RelativeError().measure(jnp.ones((5, 8, 1)), jnp.asarray(TARGETS))


@pytest.mark.parametrize("loss", [tasks.CrossEntropy(), tasks.InstanceCrossEntropy()])
def test_the_cross_entropy_is_that_of_numpy(loss):
    logits, targets = RANDOM.normal(size=(4, 6, 3)), RANDOM.integers(-1, 3, (4, 6))
    figures = loss.measure(jnp.asarray(logits), jnp.asarray(targets))
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(logs, targets[..., None], -1)[..., 0]
    counted = targets >= 0
    assert float(figures["loss"].value) == pytest.approx(-chosen[counted].mean(), rel=1e-12)
    accuracy = (logits.argmax(-1) == targets)[counted].mean()
    assert float(figures["accuracy"].value) == pytest.approx(accuracy, rel=1e-12)


def test_a_relative_error_of_functions_weighs_the_points():
    random = np.random.default_rng(0)
    outputs, targets = map(jnp.asarray, random.normal(size=(2, 3, 5, 2)))
    weights = random.random(5)
    domain = ide.TokenDomain(jnp.arange(5.0)[:, None], jnp.asarray(weights))
    found = tasks.RelativeError().measure(outputs, ide.Field(targets, domain))["loss"]

    def norms(x):
        return np.sqrt((weights[None, :, None] * x**2).sum((1, 2)))

    expected = norms(outputs - targets) / norms(targets)
    np.testing.assert_allclose(found.value, expected.mean(), rtol=1e-12)
    each = ide.TokenDomain(domain.points, jnp.stack([domain.weights] * 3))
    same = tasks.RelativeError().measure(outputs, ide.Field(targets, each))["loss"]
    np.testing.assert_allclose(same.value, found.value, rtol=1e-12)
    plain = tasks.RelativeError().measure(outputs, targets)["loss"].value
    equal = ide.Field(targets, ide.TokenDomain(domain.points))
    np.testing.assert_array_equal(
        tasks.RelativeError().measure(outputs, equal)["loss"].value, plain
    )
    with pytest.raises(ide.InputError, match="one value for each target"):
        tasks.RelativeError().measure(outputs[:, 1:], equal)
