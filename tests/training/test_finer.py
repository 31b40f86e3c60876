"""Terms of the objective that compare a solve with one on a finer mesh."""

import functools as ft
import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ide_transformer as ide
from ide_transformer import tasks, training


RANDOM = np.random.default_rng(0)
BATCH = tasks.Batch(RANDOM.integers(0, 9, (3, 4)), RANDOM.integers(0, 9, (3, 4)))
BOTH = tasks.Finer(refinement=2, consistency=0.5, defect=0.25)


@ft.cache
def model_of(std=0.3, **sections):
    tree = {"model": {"width": 8, "heads": 2, "depth": 2, "context": 4, "std": std}, **sections}
    config = training.Config.model_validate(tree)
    model = training.build_model_of_size(config, {"vocabulary": 9}, jax.random.key(0))
    return jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x, float)) if eqx.is_inexact_array(x) else x, model
    )


def probabilities(model):
    powers = np.exp(np.asarray(eqx.filter_jit(model)(BATCH.inputs)))
    return powers / powers.sum(-1, keepdims=True)


def test_the_terms_are_those_of_two_solves():
    model = model_of()
    loss = eqx.filter_jit(tasks.CrossEntropy())
    alone, found = (
        loss(model, BATCH, transport=0.1),
        loss(model, BATCH, transport=0.1, finer=BOTH),
    )
    fine = model.with_solver(model.solver, steps_per_interval=2)
    p, q = probabilities(model), probabilities(fine)
    consistency = np.mean(np.sum(q * np.log(q / p), -1))
    u, v = (np.asarray(eqx.filter_jit(m.solve)(BATCH.inputs).u1) for m in (model, fine))
    defect = np.sum((u - v) ** 2) / np.sum(v**2)
    assert consistency > 1e-4 and defect > 1e-4
    assert float(found.terms["consistency"]) == pytest.approx(consistency, rel=1e-9)
    assert float(found.terms["defect"]) == pytest.approx(defect, rel=1e-9)
    added = float(found.objective - alone.objective)
    assert added == pytest.approx(0.5 * consistency + 0.25 * defect, rel=1e-9)
    assert (alone.field_evaluations, found.field_evaluations) == (2, 6)
    assert alone.terms == {} and found.loss == alone.loss


def test_the_gradient_is_that_of_central_differences():
    weights, static = eqx.partition(model_of(), eqx.is_inexact_array)
    direction = jax.tree.map(
        lambda x: np.random.default_rng(x.size).normal(size=x.shape), weights
    )

    @jax.jit
    def added(h):
        moved = jax.tree.map(lambda x, d: x + h * d, weights, direction)
        result = tasks.CrossEntropy()(eqx.combine(moved, static), BATCH, finer=BOTH)
        return result.objective - result.loss

    h = 1e-5
    expected = float(added(h) - added(-h)) / (2 * h)
    assert abs(expected) > 1e-3
    assert float(jax.jit(jax.grad(added))(0.0)) == pytest.approx(expected, rel=1e-6)


def test_a_linear_equation_that_is_solved_exactly_has_no_gap():
    control = ide.Tied((ide.Damping(jnp.full(8, 0.7)),), num_intervals=2)
    for solver, zero in ((ide.ExponentialEuler(), True), (diffrax.Euler(), False)):
        model = eqx.tree_at(lambda m: m.control, model_of(), control).with_solver(solver)
        terms = eqx.filter_jit(tasks.CrossEntropy())(model, BATCH, finer=BOTH).terms
        assert all((abs(float(x)) < 1e-12) == zero for x in terms.values())


def test_the_gap_of_instances_is_that_of_their_targets():
    outputs, finer = jnp.asarray(RANDOM.normal(size=(2, 3, 4, 5)))
    targets = jnp.asarray(RANDOM.integers(0, 5, (3, 4))).at[:, 2:].set(-1)
    counted = tasks.CrossEntropy().gap(outputs[:, :2], finer[:, :2], targets[:, :2])
    found = tasks.InstanceCrossEntropy().gap(outputs, finer, targets)
    assert float(found) == pytest.approx(float(counted), rel=1e-12)
    relative = tasks.RelativeError().gap(3 * outputs, 2 * outputs, targets)
    assert float(relative) == pytest.approx(0.25)


@pytest.mark.thorough
@pytest.mark.heavy
def test_it_brings_the_meshes_together():
    """Of a model that learns a batch by heart."""

    def learned(finer):
        weights, static = eqx.partition(model_of(), eqx.is_inexact_array)
        optimizer = optax.adam(3e-3)

        def objective(weights):
            result = tasks.CrossEntropy()(eqx.combine(weights, static), BATCH, finer=finer)
            return result.objective, result.loss

        @jax.jit
        def step(carried, _):
            weights, state = carried
            gradient, loss = jax.grad(objective, has_aux=True)(weights)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(weights, updates), state), loss

        start = weights, optimizer.init(weights)
        (weights, _), losses = jax.lax.scan(step, start, length=300)
        terms = tasks.CrossEntropy()(eqx.combine(weights, static), BATCH, finer=BOTH).terms
        return float(losses[-1]), terms["consistency"], terms["defect"]

    loss, consistency, defect = learned(None)
    for finer in (tasks.Finer(2, 3.0, 0.0), tasks.Finer(2, 0.0, 3.0)):
        bound_loss, bound_consistency, bound_defect = learned(finer)
        print(loss, consistency, defect, bound_loss, bound_consistency, bound_defect)
        assert bound_loss < 0.1
        found = bound_consistency / consistency if finer.consistency else bound_defect / defect
        assert found < 0.3


def config(path, **changes):
    path.write_text("the sea is wide and the night is long and the wind is cold. " * 40)
    return training.Config.model_validate(
        {
            "data": {"name": "text", "path": path},
            "model": {"width": 8, "heads": 2, "depth": 2, "context": 4},
            "optimizer": {"warmup": 1},
            "training": {
                **{"steps": 4, "batch_size": 2, "log_every": 1, "sample": 0},
                "finer": {"consistency": 0.1},
            },
            **changes,
        }
    )


def test_a_run_logs_the_terms_and_counts_both_solves(tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    run = training.train(config(tmp_path / "text.txt"), runs=tmp_path / "runs")
    for line in training.read_metrics(run.metrics):
        assert line["consistency"] > 0 and line["defect"] > 0
        assert line["field_evaluations"] == 6
    assert json.loads(run.summary.read_text())["evaluations"] == 24


def test_adaptive_steps_are_refused_before_anything_is_written(tmp_path):
    solver = {"kind": "tsit5", "rtol": 1e-3, "atol": 1e-3}
    with pytest.raises(ide.InputError, match=r"training\.finer: .*adaptive steps"):
        training.train(config(tmp_path / "text.txt", solver=solver), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
