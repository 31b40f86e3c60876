"""Batches in parts, and the moving average of the weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import largest
from running import run_here
from training.tiny_runs import configured, losses

from ide_transformer import InputError, tasks, training
from ide_transformer.tasks import Batch, InstanceCrossEntropy
from ide_transformer.training import run, step
from ide_transformer.training.config import ModelConfig


TOKENS = np.random.default_rng(0).integers(0, 20, (32, 5)).astype(np.int32)
# A part whose targets are fewer has a smaller share.
TARGETS = np.where(np.arange(32)[:, None] % 4 == 1, -1, TOKENS[:, 1:]).astype(np.int32)
BATCH = Batch(TOKENS[:, :-1], np.where(TOKENS[:, :-1] > 14, -1, TARGETS))


def steps(number, accumulate, **optimizer):
    """The state and the metrics of some steps of a tiny model."""
    config = training.Config(model=ModelConfig(width=8, heads=2, depth=1, context=4))
    model = training.build_model_of_size(config, {"vocabulary": 20}, jax.random.key(0))
    rule = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(1e-2))
    state, static = training.initial_state(model, rule, jax.random.key(0), average=0.9)
    step = training.make_train_step(
        rule, static, InstanceCrossEntropy(), accumulate=accumulate, average=0.9
    )
    seen, metrics = [], {}
    for _ in range(number):
        state, metrics = step(state, BATCH)
        seen.append(jax.tree.map(np.array, state.weights))
    return state, metrics, seen


def test_parts_of_a_batch_make_the_step_of_the_whole():
    (whole, metrics, _), (parts, in_parts, _) = steps(2, 1), steps(2, 4)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert a.dtype == b.dtype and np.allclose(a, b, rtol=0, atol=1e-6)
    for name, value in metrics.items():
        assert float(in_parts[name]) == pytest.approx(float(value), abs=1e-6), name


# The logarithm of no weight in float64, cut off in float32.
@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_functions_at_points_of_their_own_are_parted_by_samples():
    """The points are those of all samples."""
    task = tasks.BurgersInterval(8, points="random")
    section = {"kind": "operator_model", "width": 8, "heads": 2, "depth": 1, "context": 8}
    config = training.Config.model_validate(
        {"data": {"name": "burgers_interval"}, "model": {**section, "options": {"modes": 2}}}
    )
    model = training.build_model(config, task, jax.random.key(0))
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    batch = jax.tree.map(jnp.asarray, task.batch(0, 6, 0))

    def loss(weights, batch, key):
        return task.loss(eqx.combine(weights, static), batch, key)

    parts = (jax.jit(step.gradient_in_parts(loss, n)) for n in (1, 3))
    found = [gradient(weights, batch, None) for gradient in parts]
    for a, b in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_average_is_the_weighted_mean_of_the_weights_so_far():
    state, _, seen = steps(3, 1)
    factors = 0.9 ** np.arange(2, -1, -1)
    factors = factors / factors.sum()
    mean = jax.tree.map(lambda *x: sum(f * y for f, y in zip(factors, x, strict=True)), *seen)
    found = step.weights_of(state, "average", 0.9)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(mean), strict=True):
        assert largest(a, jnp.asarray(b)) < 1e-12


@pytest.mark.heavy
def test_a_run_keeps_its_average_and_old_runs_have_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "plot_run", lambda *_: None)
    options = ["training.steps=4", "training.evaluate_every=2", "optimizer.warmup=1"]
    config = configured(tmp_path, [*options, "training.average=0.5"])
    folder = training.train(config, runs=tmp_path / "runs")
    (a, _), (b, _) = (training.load_run(folder.path, weights=x) for x in ("trained", "average"))
    assert 1e-6 < largest(a.inputs.embedding, b.inputs.embedding) < 0.1
    text = folder.summary.read_text()
    assert "validation_loss_of_average" in text and "test_loss" not in text
    output = run_here(
        capsys, "evaluate.py", folder.path, "--weights", "average", "--samples", "4"
    )
    assert "loss" in output

    # Without it the same is learned; the programs of the two differ, and so does rounding.
    plain = training.train(configured(tmp_path, options), runs=tmp_path / "plain")
    with pytest.raises(InputError, match=r"keeps no moving average .* training.average=0.999"):
        training.load_run(plain.path, weights="average")
    np.testing.assert_allclose(losses(plain.path), losses(folder.path), rtol=1e-14)
