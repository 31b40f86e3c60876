"""Runs whose depth changes on the way, on meshes and horizons, with exits and with layers left
out: trained, gone on with, and evaluated."""

import functools as ft
import json

import equinox as eqx
import jax
import numpy as np
import pytest
from running import logged, run_here
from training import stub
from training.conftest import equal

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.training import loading
from ide_transformer.training.phases import drawn_mesh, resample_state


# Two schemes and horizons, and what else the state of a run may hold.
DRAWN = {
    "control": "tied",
    "optimizer": {"kind": "schedule_free", "schedule": "constant", "groups": {"control": 0.5}},
    "training": {
        "meshes": [{"horizon": 3}, {"intervals": 1, "solver": "heun", "after": 2}],
        **{"average": 0.5, "accumulate": 2},
    },
}
COARSE = {"intervals": 1, "tokens": 2}


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return stub.train(runs, training={"refine": {0: COARSE, 0.5: 2}})


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return stub.train(tmp_path_factory.mktemp("runs"), **DRAWN)


def same_end(run, other):
    assert logged(other.path) == logged(run.path)
    assert equal(*(training.load_run(x.path)[0] for x in (run, other)))


def test_a_run_that_is_refined_and_made_longer_is_the_run_of_that_length(
    refined, tmp_path, capsys
):
    """From the last step before the mesh is refined, at the same step; until then it has the
    coarse one."""
    evaluations = [line["field_evaluations"] for line in logged(refined.path) if "loss" in line]
    assert evaluations == [1, 1, 2, 2] and refined.load_summary()["evaluations"] == 6
    assert refined.load_config().optimizer.schedule == "warmup_stable_decay"
    coarse, _ = training.load_run(refined.path, checkpoint=2)
    assert coarse.control.num_intervals == 1
    longer = stub.resumed(refined, tmp_path / "longer", 2, ["training.steps=6"])
    assert "step 2: refined to 2 intervals" in capsys.readouterr().out
    whole = stub.train(tmp_path, training={"steps": 6, "refine": {0: COARSE, 2: 2}})
    assert longer.load_config() == whole.load_config()
    same_end(whole, longer)


def test_a_run_on_several_meshes_goes_on_to_the_same_bits(drawn, tmp_path):
    same_end(drawn, stub.resumed(drawn, tmp_path, 2))
    lines = [line for line in logged(drawn.path) if "loss" in line]
    evaluations = [line["field_evaluations"] for line in lines]
    meshes = [drawn_mesh(drawn.load_config().training, step) for step in range(4)]
    assert evaluations == [(3, 2)[mesh] for mesh in meshes] and set(meshes) == {0, 1}
    summary = json.loads(drawn.summary.read_text())
    assert summary["evaluations"] == sum(evaluations) == 4 * summary["nfe"]


def test_the_weights_that_are_evaluated(drawn, refined, monkeypatch):
    """Of schedule-free training the mean, and the moving average beside it."""
    summary = json.loads(drawn.summary.read_text())
    for which, suffix in (("trained", ""), ("average", "_of_average")):
        loss = training.evaluate_loss(training.load_model(drawn.path, weights=which))["loss"]
        assert loss == pytest.approx(summary[f"validation_loss{suffix}"], rel=1e-5)
    lines = training.read_metrics(drawn.metrics)
    on_the_way = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert on_the_way[-1] == pytest.approx(summary["validation_loss"], rel=1e-5)
    monkeypatch.setattr(training.step, "evaluated_weights", lambda state, weights: weights)
    loss = training.evaluate_loss(training.load_model(drawn.path))["loss"]
    assert abs(loss - summary["validation_loss"]) > 1e-5
    with pytest.raises(ide.InputError, match=r"no moving average .* training.average=0.999"):
        training.load_run(refined.path, weights="average")


def test_a_run_that_is_refined_is_a_chain_of_two(refined):
    """The state is resampled between them, and the schedule goes on."""
    settings = refined.load_config()
    task, model, key = loading.build_start(settings)
    assert model.control.num_intervals == 1 and model.control.interval_length == 2.0
    rule = training.build_optimizer(settings.optimizer, 4)
    state, static = training.initial_state(model, rule, key)
    for first, tokens in ((0, 2), (2, 4)):
        if first:
            resample = ft.partial(resample_state, optimizer=rule, static=static)
            state = jax.jit(ft.partial(resample, num_intervals=2))(state)
            fine = model.on(ide.Mesh(intervals=2))
            static = eqx.filter(fine, eqx.is_inexact_array, inverse=True)
        take = training.make_train_step(rule, static, task.loss)
        for number in (first, first + 1):
            state, _ = take(state, task.on(ide.Mesh(tokens=tokens)).batch(number, 4, 0))
    found, _ = training.load_run(refined.path)
    assert found.control.num_intervals == 2 and found.control.interval_length == 1.0
    weights = eqx.filter(found, eqx.is_inexact_array)
    for x, y in zip(*map(jax.tree.leaves, (weights, state.weights)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_meshes_are_drawn_by_weight_from_their_step_on():
    meshes = [2, {"intervals": 4, "weight": 3.0}, {"intervals": 8, "after": 500}]
    settings = stub.config(training={"meshes": meshes, "steps": 2000}).training
    draws = np.array([drawn_mesh(settings, step) for step in range(2000)])
    early, late = draws[:500], draws[500:]
    # Within four standard deviations.
    assert abs(np.mean(early == 1) - 0.75) < 4 * (0.75 * 0.25 / 500) ** 0.5
    assert not np.any(early == 2)
    expected = np.array([1, 3, 1]) / 5
    found = np.bincount(late, minlength=3) / 1500
    assert np.all(np.abs(found - expected) < 4 * (expected * (1 - expected) / 1500) ** 0.5)
    other = settings.model_copy(update={"seed": 1})
    assert [drawn_mesh(other, step) for step in range(50)] != draws[:50].tolist()


def cross_entropy(logits, targets):
    logits = np.asarray(logits, np.float64)
    chosen = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    return (np.log(np.exp(logits).sum(-1)) - chosen).mean()


@eqx.filter_jit
def by_hand(model, tokens, layers):
    """The logits after some of the layers, one operator after the other."""
    u, domain = model.embed(tokens)
    for layer in layers:
        for operator in model.control(float(layer)):
            u = u + operator(u, domain)
    return model.outputs(u)


def test_a_model_is_evaluated_with_some_of_its_layers(refined):
    loaded = training.load_model(refined.path)
    (batch,) = stub.Stub(4).held_out(32)
    for mesh, steps, layers in (("first", 1, [0]), ("spread", 2, [0, 1])):
        (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(intervals=steps)], layers=mesh)
        logits = by_hand(loaded.model, batch.inputs, layers)
        assert row["evaluations"] == len(layers)
        assert row["loss"] == pytest.approx(cross_entropy(logits, batch.targets), rel=1e-5)
    for wrong, said in (
        (ide.Mesh(intervals=5), "has 2 of them"),
        (ide.Mesh(), "intervals=None"),
    ):
        with pytest.raises(ide.InputError, match=said):
            training.evaluate_on_meshes(loaded, [wrong], layers="first")


TOLERANCE = 1e-5


def test_exits_are_measured_against_the_full_solve(drawn):
    loaded = training.load_model(drawn.path)
    exit, five = ide.EstimatedExit(1.0), ide.Mesh(horizon=5)
    rows = training.evaluate_exits(loaded, exit, [0.0, TOLERANCE, 1e6], [five], samples=24)
    assert [row["tolerance"] for row in rows] == [None, 0.0, TOLERANCE, 1e6]
    for row in rows[:2]:
        assert row["loss"] == pytest.approx(rows[0]["loss"], rel=1e-5)
        assert (row["evaluations"], row["saved"], row["steps"]) == (5, 0, 5)
    assert rows[3]["evaluations"] == 2 and rows[3]["saved"] == pytest.approx(3 / 5)
    # Between two batches of different sizes the mean is that over samples.
    model = loaded.model.on(five).with_exit(ide.EstimatedExit(TOLERANCE))
    (batch,) = stub.Stub(4).held_out(32, 24)
    stats = eqx.filter_jit(lambda model: model.solve(batch.inputs).stats)(model)
    mean = float(np.mean(stats["field_evaluations"]))
    assert 2 < mean < 5 and rows[2]["evaluations"] == pytest.approx(mean, rel=1e-6)


class Own(tasks.AbstractLoss):
    """A loss of a user."""

    label = "own"

    def measure(self, outputs, targets):
        raise NotImplementedError


def test_the_exit_of_a_loss_and_the_cheapest_within_a_margin():
    with pytest.raises(ide.InputError, match=r"--exit: .*Own.*define `difference`"):
        training.estimated_exit(Own())
    exit = training.estimated_exit(tasks.RelativeError(), stops="sample")
    assert exit.difference is ide.relative_difference
    names = ("steps", "tolerance", "evaluations", "loss")
    full, low, high = (8, None, 8.0, 1.0), (8, 0.1, 7.0, 1.004), (8, 0.5, 6.0, 1.006)
    others = (4, None, 4.0, 1.0), (4, 0.1, 3.0, 1.1)
    rows = [dict(zip(names, row, strict=True)) for row in (full, low, high, *others)]
    found = training.cheapest_exits(rows, [0.005, 0.02])
    assert [best["evaluations"] for best in found] == [7, 4, 6, 4]


@pytest.mark.heavy
def test_a_run_is_evaluated_by_the_script(drawn, tmp_path, capsys):
    files = ("--json", tmp_path / "rows.json", "--figure", tmp_path / "figure.png")
    script = ("evaluate.py", drawn.path, "--samples", 8)
    run_here(capsys, *script, "--mesh", "horizon=2,5", "--measure", "accuracy", *files)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["horizon"], row["evaluations"]) for row in rows] == [(2, 2), (5, 5)]
    assert (tmp_path / "figure.png").stat().st_size > 1000
    other = run_here(capsys, *script, "--mesh", "intervals=2", "solver.kind=rk4")
    assert " 8 " in other  # four stages in each of two steps
    exits = ("--exit", "0.1,0.01", "--mesh", "intervals=2,4", "--exit-for", "sample")
    assert "fewest evaluations" in run_here(capsys, *script, *exits, *files)
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 2 * 3
    for wrong, said in (
        (("--exit=-1",), "-1"),
        (("--exit", "none"), "none"),
        (("--exit", "0.1", "solver.kind=nesterov"), "Nesterov uses earlier steps"),
        (("--mesh", "intervals=2", "--measure", "perplexity", *files), "must be one of loss"),
    ):
        assert said in run_here(capsys, *script, *wrong, expected=2)
