"""Meshes in depth that are drawn in training, and models solved on other meshes."""

import itertools
import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import block_at
from helpers import fast_first, largest
from running import logged, run_here

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.meshes import drawn_mesh, mesh_maps


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40
CONTROLS = {
    "chebyshev": {"terms": 3},
    "fourier": {"waves": 1},
    "hypernetwork": {},
    "piecewise_linear": {},
    "piecewise_constant": {},
    "tied": {},
}


def config(path, *, control="chebyshev", meshes=(2, 4), **changes):
    return training.Config.model_validate(
        {
            "name": "any",
            "data": {"name": "text", "path": path},
            "model": {"width": 16, "heads": 2, "depth": 4, "context": 8},
            "control": {"kind": control, "options": CONTROLS[control]},
            "optimizer": {"warmup": 1},
            "training": {
                "steps": 12,
                "batch_size": 4,
                "log_every": 1,
                "checkpoint_every": 6,
                "sample": 0,
                "meshes": list(meshes),
                **changes,
            },
        }
    )


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def model_of(settings):
    model = training.build_model_of_size(settings, {"vocabulary": 15}, jax.random.key(0))
    return jax.tree.map(
        lambda x: jnp.asarray(np.asarray(x, float)) if eqx.is_inexact_array(x) else x, model
    )


def test_meshes_are_drawn_by_weight_from_their_step_on(text):
    meshes = [2, {"intervals": 4, "weight": 3.0}, {"intervals": 8, "after": 500}]
    settings = config(text, meshes=meshes, steps=2000).training
    draws = np.array([drawn_mesh(settings, step) for step in range(2000)])
    assert np.array_equal(draws, [drawn_mesh(settings, step) for step in range(2000)])
    early, late = draws[:500], draws[500:]
    # Within four standard deviations.
    assert abs(np.mean(early == 1) - 0.75) < 4 * (0.75 * 0.25 / 500) ** 0.5
    assert not np.any(early == 2)
    expected = np.array([1, 3, 1]) / 5
    found = np.bincount(late, minlength=3) / 1500
    assert np.all(np.abs(found - expected) < 4 * (expected * (1 - expected) / 1500) ** 0.5)
    other = settings.model_copy(update={"seed": 1})
    assert [drawn_mesh(other, step) for step in range(50)] != draws[:50].tolist()


@pytest.mark.parametrize("control", fast_first(1, [*CONTROLS][::-1], heavy=1))
def test_a_mesh_is_the_same_equation_on_other_intervals(text, control):
    """Of smooth weights the solutions on finer meshes tend to one limit; layers are refined
    exactly, so that steps of the finer mesh are those of the coarser one in parts."""
    model = model_of(config(text, control=control))
    inputs = jnp.arange(8)
    fine = model.on(ide.Mesh(intervals=16))
    assert fine.control.num_intervals == 16
    assert fine.control.horizon == pytest.approx(model.control.horizon)
    for t in (0.3, 1.7, 3.9):
        leaves = (jax.tree.leaves(block_at(m.control, t)) for m in (model, fine))
        pairs = zip(*leaves, strict=True)
        assert all(np.allclose(a, b, atol=1e-12) for a, b in pairs)
    if control == "piecewise_constant":
        halves = model.with_solver(model.solver, steps_per_interval=4)
        assert np.allclose(fine(inputs), halves(inputs), atol=1e-12)
    solve = eqx.filter_jit(lambda model: model.solve(inputs).u1)
    states = [solve(model.on(ide.Mesh(intervals=n))) for n in (16, 32, 64)]
    first, second = (largest(a, b) for a, b in itertools.pairwise(states))
    assert first / second == pytest.approx(2, abs=0.25)  # Lie–Trotter(Euler) is of order 1


@pytest.mark.heavy
def test_the_gradient_goes_through_the_mesh(text):
    """Against central differences, for weights that a mesh interpolates."""
    settings = config(text, control="piecewise_linear", meshes=[3])
    model, (solved,) = model_of(settings), mesh_maps(settings.training)
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    direction = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape, x.dtype), weights
    )

    @jax.jit
    def loss(weights):
        return jnp.mean(solved(eqx.combine(weights, static))(jnp.arange(8)) ** 2)

    def shifted(h):
        return loss(jax.tree.map(lambda x, d: x + h * d, weights, direction))

    slope = jax.tree.map(jnp.vdot, jax.grad(loss)(weights), direction)
    h = 2e-6
    expected = float(shifted(h) - shifted(-h)) / (2 * h)
    assert float(sum(jax.tree.leaves(slope))) == pytest.approx(expected, rel=2e-7)


@pytest.mark.heavy
def test_a_run_with_meshes_goes_on_to_the_same_bits(text, tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    meshes = [2, {"intervals": 1, "solver": "rk4", "after": 3}]
    settings = config(text, control="tied", meshes=meshes)
    run = training.train(settings, runs=tmp_path / "runs")
    whole, end = logged(run.path), training.load_run(run.path)[0]
    evaluations = [line["field_evaluations"] for line in whole if "loss" in line]
    assert set(evaluations) == {2.0, 4.0}
    summary = json.loads(run.summary.read_text())
    assert summary["evaluations"] == sum(evaluations)
    assert summary["nfe"] == pytest.approx(sum(evaluations) / 12)
    shutil.rmtree(run.checkpoints / "12")
    run.summary.unlink()
    training.resume_run(run.path)
    assert logged(run.path) == whole
    assert eqx.tree_equal(training.load_run(run.path)[0], end)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(control="fourier", meshes=[3, 2]),
            r"training\.meshes\.1=\{intervals: 2\}: .*waves",
        ),
        (
            dict(meshes=[{"intervals": 2, "solver": "nesterov"}]),
            r"meshes\.0\.solver=.* weights",
        ),
        (dict(meshes=[{"intervals": 2, "after": 5}]), "give one without after"),
        (dict(meshes=[0]), r"training\.meshes\.0\.intervals"),
        (dict(meshes=[{"width": 9}]), r"training\.meshes\.0=\{width: 9\}: .*modes=16"),
        (dict(meshes=[2, {"tokens": 900}]), r"training\.meshes\.1\.tokens=900: .* longer"),
    ],
)
def test_meshes_that_cannot_be_are_refused_before_anything_is_written(
    text, tmp_path, changes, message
):
    with pytest.raises((ide.InputError, ValueError), match=message):
        training.train(config(text, **changes), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.thorough
@pytest.mark.heavy
def test_a_run_is_evaluated_and_sampled_at_other_depths(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    run = training.train(config(text), runs=tmp_path / "runs").path
    files = ("--json", tmp_path / "rows.json", "--figure", tmp_path / "figure.png")
    run_here(capsys, "evaluate.py", run, "--mesh", "intervals=1,2,4", "--samples", 8, *files)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["intervals"], row["evaluations"]) for row in rows] == [(1, 1), (2, 2), (4, 4)]
    for row in rows:
        loaded = training.load_model(run)
        loaded = loaded._replace(model=loaded.model.on(ide.Mesh(intervals=row["intervals"])))
        alone = training.evaluate_loss(loaded, None, 8)
        assert alone["loss"] == pytest.approx(row["loss"])
    assert (tmp_path / "figure.png").stat().st_size > 1000
    other = run_here(capsys, "evaluate.py", run, "--mesh", "intervals=2", "solver.kind=rk4")
    assert " 8 " in other  # four stages in each of two steps
    assert "the" in run_here(
        capsys, "sample.py", run, "--mesh", "intervals=3", "--prompt", "the", "--length", 2
    )
