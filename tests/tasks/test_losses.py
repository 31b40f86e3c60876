from types import SimpleNamespace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.training.step import make_evaluation


RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("loss", [tasks.CrossEntropy(), tasks.InstanceCrossEntropy()])
def test_the_cross_entropy_is_that_of_numpy(loss):
    logits, targets = RANDOM.normal(size=(4, 6, 3)), RANDOM.integers(-1, 3, (4, 6))
    targets[0] = logits[0].argmax(-1)
    figures = loss.measure(jnp.asarray(logits), jnp.asarray(targets))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted, right = targets >= 0, logits.argmax(-1) == targets
    chosen = np.take_along_axis(probabilities, np.maximum(targets, 0)[..., None], -1)[..., 0]
    assert float(figures["loss"].value) == pytest.approx(-np.log(chosen)[counted].mean())
    assert int(figures["loss"].count) == counted.sum() < targets.size
    assert float(figures["accuracy"].value) == pytest.approx(right[counted].mean())
    if isinstance(loss, tasks.InstanceCrossEntropy):
        exact = (right | ~counted).all(1)
        assert float(figures["exact_match"].value) == pytest.approx(exact.mean()) != 0

    def value(y, targets=jnp.asarray(targets)):
        return loss.measure(y, targets)["loss"].value

    expected = (probabilities - np.eye(3)[targets]) * counted[..., None] / counted.sum()
    np.testing.assert_allclose(jax.grad(value)(jnp.asarray(logits)), expected, atol=1e-12)
    nothing = jnp.full((4, 6), -1)
    assert value(jnp.asarray(logits), nothing) == 0
    assert (jax.grad(value)(jnp.asarray(logits), nothing) == 0).all()


def test_the_relative_error_weighs_the_points():
    outputs, targets = map(jnp.asarray, RANDOM.normal(size=(2, 3, 5, 2)))
    weights = RANDOM.random(5)
    domain = ide.TokenDomain(jnp.arange(5.0)[:, None], jnp.asarray(weights))

    def error(targets):
        return tasks.RelativeError().measure(outputs, targets)["loss"].value

    def expected(w):
        def norms(x):
            return np.sqrt((w[None, :, None] * x**2).sum((1, 2)))

        return (norms(outputs - targets) / norms(targets)).mean()

    each = ide.TokenDomain(domain.points, jnp.stack([domain.weights] * 3))
    for of_points in (domain, each):
        found = error(ide.Field(targets, of_points))
        np.testing.assert_allclose(found, expected(weights), rtol=1e-12)
    for plain in (targets, ide.Field(targets, ide.TokenDomain(domain.points))):
        np.testing.assert_allclose(error(plain), expected(np.ones(5)), rtol=1e-12)
    with pytest.raises(ide.InputError, match=r"outputs of shape \(3, 5, 2\), and the targets"):
        error(targets[:, 1:])


class Table(eqx.Module):
    """A model whose logits are a row of a table for each token, without an equation."""

    rows: jax.Array
    equation: ClassVar = SimpleNamespace(knots=np.arange(2.0))

    def solve(self, inputs, **_):
        stats = {"field_evaluations": 1}
        return SimpleNamespace(u1=self.rows[inputs], succeeded=True, stats=stats)

    def outputs(self, u):
        return u


def test_an_evaluation_is_the_mean_over_all_targets(unchecked):
    task = tasks.WordProblem(3, (1, 3))
    # It repeats the token, which is right at the first one.
    weights, static = eqx.partition(Table(jnp.eye(6)), eqx.is_inexact_array)
    values = make_evaluation(static)(weights, task, 300)
    batches = list(task.held_out(1024))
    (inputs, targets), counted = batches[0], batches[0].targets >= 0
    assert values["validation_accuracy"] == pytest.approx((inputs == targets)[counted].mean())
    exact = ((inputs == targets) | ~counted).all(1).mean()
    assert values["validation_exact_match"] == pytest.approx(exact)
    task.held_out = lambda *_: iter([tasks.Batch(*2 * [np.full((1, 3), -1)])])
    with pytest.raises(ide.InputError, match="None of these held-out samples has a target"):
        make_evaluation(static)(weights, task, 1)
