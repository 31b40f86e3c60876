"""Runs whose depth changes, on several meshes and horizons, with exits and layers left out:
training, resuming and evaluating them; the state of an optimizer on another mesh."""

import functools as ft
import json
import shutil

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import InputError, training
from ide_transformer.training.configuration import files
from ide_transformer.training.run import resumed_config
from ide_transformer.training.setup import setup
from ide_transformer.training.steps.growth import Refinement, grow_state
from tests.helpers import fast_first, filled
from tests.running import logged, run_here
from tests.training import stub
from tests.training.conftest import equal


# An operator that compiles in less time, whose flow is not exact.
LINEAR = {"operators": ["feature_integral"]}
# Two horizons and steps, and what else the state of a run may hold.
DRAWN = {
    "model": LINEAR,
    "control": "tied",
    "optimizer": {"schedule": "constant", "groups": {"control": 0.5}},
    "training": {
        "schedule": [
            {"until": 2, "meshes": [{"horizon": 3}]},
            {"meshes": [{"horizon": 3}, {"layers": 1, "steps": 2}]},
        ],
        "average": 0.5,
    },
}
COARSE = {"layers": 1, "tokens": 2}


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    """Its scheme has weights too."""
    runs = tmp_path_factory.mktemp("runs")
    schedule = [{"until": 2, "mesh": COARSE}]
    settings = {"steps": 6, "keep": 3, "schedule": schedule}
    return stub.train(runs, model=LINEAR, solver="nesterov", training=settings)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return stub.train(tmp_path_factory.mktemp("runs"), **DRAWN)


def same_end(run, other):
    assert logged(other.path) == logged(run.path)
    assert equal(*(training.load_run(x.path)[0] for x in (run, other)))


def evaluations(run):
    return [line["field_evaluations"] for line in logged(run.path) if "loss" in line]


def test_a_run_that_is_refined_and_made_longer_is_the_run_of_that_length(refined, tmp_path):
    assert evaluations(refined) == [1, 1, 2, 2, 2, 2]
    assert {"solver.momentum", "solver.gain"} < logged(refined.path)[0].keys()
    assert refined.load_summary()["evaluations"] == 10
    assert training.load_run(refined.path, checkpoint=2)[0].control.layers == 1
    pretrained = {"pretrained": str(refined.path), "checkpoint": 2}
    with pytest.raises(InputError, match=r"has 1 layers .*model.layers=1 and .*horizon=2"):
        setup(files.config_of(stub.tree() | {"model": pretrained}, "here"))
    # Until then a run of four steps is the same.
    settings = {"keep": 3, "schedule": [{"until": "50%", "mesh": COARSE}]}
    config = stub.config(model=LINEAR, solver="nesterov", training=settings)
    short = training.RunFolder(shutil.copytree(refined.path, tmp_path / "small"))
    short.record_config(config)
    longer = stub.resumed(short, tmp_path / "longer", 2, ["training.steps=6"])
    # The command that made it longer may come again.
    again = config.changed("training", steps=6)
    assert resumed_config(longer, again) == longer.load_config()
    assert longer.load_config() == refined.load_config()
    same_end(refined, longer)


def test_a_run_on_several_meshes_goes_on_to_the_same_bits(drawn, tmp_path):
    same_end(drawn, stub.resumed(drawn, tmp_path, 2))
    config = drawn.load_config()
    first, second = training.scheduled_meshes(config)[-1]
    meshes = [*map(training.mesh_drawer(config), range(4))]
    assert set(meshes) == {first, second}
    assert evaluations(drawn) == [{first: 3, second: 2}[mesh] for mesh in meshes]
    summary = drawn.load_summary()
    assert summary["evaluations"] == sum(evaluations(drawn)) == 4 * summary["nfe"]


def test_the_weights_that_are_evaluated(drawn):
    summary = drawn.load_summary()
    for weights, suffix in (("trained", ""), ("average", "_of_average")):
        loss = training.evaluate_loss(training.load_model(drawn.path, weights=weights))["loss"]
        assert loss == pytest.approx(summary[f"validation_loss{suffix}"], rel=1e-5)
    assert abs(summary["validation_loss_of_average"] - summary["validation_loss"]) > 1e-5


def test_a_run_is_evaluated_on_the_way_as_it_is_trained(refined):
    losses = [x["validation_loss"] for x in logged(refined.path) if "validation_loss" in x]
    loaded, logged_loss = training.load_model(refined.path, checkpoint=2), losses[0]
    assert loaded.model.layers == 1
    assert training.evaluate_loss(loaded)["loss"] == pytest.approx(logged_loss, rel=1e-6)
    # The run has the mesh of its end.
    assert training.load_run(refined.path)[0].layers == 2
    finer = loaded._replace(model=loaded.model.on(ide.Mesh(layers=2)))
    assert abs(training.evaluate_loss(finer)["loss"] - logged_loss) > 1e-6


def test_meshes_are_drawn_by_weight_in_each_phase():
    few = [{"layers": 2}, {"layers": 4}]
    schedule = [
        {"until": 500, "meshes": few, "weights": [1.0, 3.0]},
        {"meshes": [*few, {"layers": 8}], "weights": [1.0, 3.0, 1.0]},
    ]
    config = stub.config(training={"schedule": schedule, "steps": 2000})
    meshes = training.scheduled_meshes(config)[-1]
    draw_mesh = training.mesh_drawer(config)
    draws = np.array([meshes.index(draw_mesh(step)) for step in range(2000)])
    for part, expected in ((draws[:500], [0.25, 0.75, 0]), (draws[500:], [0.2, 0.6, 0.2])):
        shares, expected = np.bincount(part, minlength=3) / len(part), np.array(expected)
        deviation = (expected * (1 - expected) / len(part)) ** 0.5
        assert np.all(np.abs(shares - expected) <= 4 * deviation)
    draw_mesh = training.mesh_drawer(config.changed("training", seed=1))
    assert [meshes.index(draw_mesh(step)) for step in range(50)] != draws[:50].tolist()


def test_exits_of_a_run_are_written(drawn, capsys, tmp_path):
    file = tmp_path / "exits.json"
    options = "--exits", "1e6", "--samples", 8, "--json", file
    assert "measured on" in run_here(capsys, "evaluate", drawn.path, *options)
    assert [row["tolerance"] for row in json.loads(file.read_text())] == [None, 1e6]


@pytest.mark.heavy
def test_exits_are_measured_against_the_full_solve(drawn):
    loaded = training.load_model(drawn.path)
    exit, five = ide.EstimatedExit(1.0), ide.Mesh(horizon=5.0)
    meshes = five, ide.Mesh(horizon=5.0, steps=2)
    rows = training.evaluate_exits(loaded, exit, [0.0, 1e-5, 1e6], meshes, samples=24)
    # Each mesh has a full solve of its own.
    cheap = training.cheapest_exits(rows, [1e6])
    assert [(row["steps_to_T"], row["evaluations"]) for row in cheap] == [(5, 2), (10, 2)]
    rows = rows[:4]
    assert [row["tolerance"] for row in rows] == [None, 0.0, 1e-5, 1e6]
    for row in rows[:2]:
        assert row["loss"] == pytest.approx(rows[0]["loss"], rel=1e-5)
        assert (row["evaluations"], row["saved"], row["steps_to_T"]) == (5, 0, 5)
    assert rows[3]["evaluations"] == 2 and rows[3]["saved"] == pytest.approx(3 / 5)
    # Between two batches of different sizes the mean is that over samples.
    model = loaded.model.on(five).with_exit(ide.EstimatedExit(1e-5))
    (batch,) = stub.Stub(4).held_out(32, 24)
    stats = eqx.filter_jit(lambda model: model.solve(batch.inputs).stats)(model)
    mean = float(np.mean(stats["field_evaluations"]))
    assert 2 < mean < 5 and rows[2]["evaluations"] == pytest.approx(mean, rel=1e-6)
    with pytest.raises(InputError, match="tokens=3: "):
        training.evaluate_exits(loaded, exit, [0.1], [ide.Mesh(tokens=3)])


# What an optimizer keeps of a weight, and how often the gradient is a factor of it.
POWERS = {"mu": 1, "nu": 2}
# From two intervals to four: layers are repeated, and knots interpolated.
MATRICES = {
    "piecewise_constant": np.repeat(np.eye(2), 2, axis=0),
    "piecewise_linear": np.array(
        [[1, 0, 0], [0.5, 0.5, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    ),
}


def leaves_by_path(state):
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


CASES = [("piecewise_constant", "muon"), ("piecewise_linear", "adamw")]


@pytest.mark.parametrize(("control", "kind"), fast_first(1, CASES))
def test_what_is_kept_of_weights_is_that_of_the_finer_ones(control, kind):
    config = stub.config(control=control, optimizer={"kind": kind, "schedule": "constant"})
    model = stub.model_of(config)
    optimizer = training.build_optimizer(config.optimizer, 10)
    start = ft.partial(training.initial_state, model, optimizer)
    shapes, static = eqx.filter_eval_shape(start, jax.random.key(0))
    # Means of squares, among others, are not negative.
    state = jax.tree.map(abs, filled(shapes, 0.3, seed=0))
    grow = ft.partial(grow_state, growth=Refinement(), static=static)
    refined = jax.jit(ft.partial(grow, layers=4))(state)

    weights = eqx.filter(model.on(ide.Mesh(layers=4)), eqx.is_inexact_array)
    expected = jax.eval_shape(optimizer.init, weights)
    assert jax.tree.structure(expected) == jax.tree.structure(refined.optimizer)
    before, after = leaves_by_path(state.optimizer), leaves_by_path(refined.optimizer)
    assert before.keys() == after.keys()
    moments = set()
    for path, x in before.items():
        if "control" in path:
            name = next(part for part in path.split(".") if part in POWERS)
            moments.add(name)
            # Each of twice as many weights has half of the gradient.
            x = np.tensordot(MATRICES[control], x, axes=1) * 0.5 ** POWERS[name]
        np.testing.assert_allclose(after[path], x, rtol=1e-6, atol=1e-7)
    assert moments == set(POWERS)
