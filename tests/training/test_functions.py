"""Runs on functions: their relative error, predictions, and outputs as inputs again."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from running import run_here
from tasks.files import darcy_folder

import ide_transformer as ide
from ide_transformer import figures, tasks, training
from ide_transformer.training import predictions


SMALL = [
    *("data.options={viscosity: 0.05, time: 0.1, samples: 12, held_out_samples: 5}",),
    *("model.context=16", "model.options={modes: 3}", "model.width=8", "model.heads=2"),
    *("model.depth=2", "optimizer.warmup=2", "training.steps=6", "training.batch_size=4"),
    *("training.evaluate_every=3", "training.checkpoint_every=6", "training.log_every=2"),
]
BURGERS = ROOT / "configs/beds/burgers.yaml"


@pytest.fixture(scope="module", autouse=True)
def stub_is_known():
    """Not here, where runs draw their figures."""


class Values(ide.FunctionInputs):
    """States that are the values themselves."""

    def embed(self, inputs, *, key=None):
        values = inputs.values if isinstance(inputs, ide.Field) else inputs
        flat = jnp.asarray(values).reshape(len(values), -1, 1)
        return super().embed(inputs)._replace(u0=jnp.broadcast_to(flat, (*flat.shape[:2], 4)))


class Half(ide.FunctionValues):
    """Half of the first feature."""

    def __call__(self, u, inputs):
        return 0.5 * u[..., 0]


def loaded(monkeypatch, task, points):
    linear = ide.Linear(
        9 if isinstance(points, tuple) else 5, 4, bias=True, std=0.1, key=jax.random.key(0)
    )
    model = ide.Model(
        Values(points, linear, modes=2),
        ide.Tied((ide.Damping(jnp.zeros(4)),), 1),
        ide.Free(),
        ide.Discretization(ide.LieTrotter()),
        Half(ide.Linear(4, 1, key=jax.random.key(1))),
    )
    monkeypatch.setattr(predictions, "evaluation_task", lambda *_: task)
    return training.LoadedModel(model, None, Path("here"))


def drawn(monkeypatch):
    found = []
    monkeypatch.setattr(figures, "plot_fields", lambda *arguments: found.append(arguments))
    return found


def test_outputs_are_inputs_again(monkeypatch):
    """Of a flow that halves its functions nothing is off; of one that does not, all is."""
    truth = np.random.default_rng(0).normal(size=(2, 8, 8))
    path = np.stack([truth, truth / 2, truth / 4, truth / 4])
    task = object.__new__(tasks.FlowMapTask)
    task.flow, task.context = tasks.NavierStokesFlow(0.5, 1e-3), 8
    monkeypatch.setattr(tasks.FlowMapTask, "trajectory", lambda *_: path)
    figures = drawn(monkeypatch)
    rows = training.rollout_errors(loaded(monkeypatch, task, (8, 8)), 3, 2, Path("picture"))
    assert [row["time"] for row in rows] == [0.5, 1.0, 1.5]
    np.testing.assert_allclose([row["error"] for row in rows], [0, 0, 0.5], atol=1e-6)
    np.testing.assert_allclose([row["unchanged"] for row in rows], [1, 3, 3], rtol=1e-5)
    ((_, points, samples),) = figures
    np.testing.assert_allclose(samples[1]["prediction"], truth[1].ravel() / 8, rtol=1e-6)
    np.testing.assert_allclose(points[9], [1 / 8, 1 / 8])


def test_predictions_are_drawn_at_their_points(monkeypatch, tmp_path):
    folder = tmp_path / "darcy"
    folder.mkdir()
    parts = darcy_folder(folder)
    task = tasks.Darcy(folder, samples=20, points="random", subset=40)
    figures = drawn(monkeypatch)
    training.draw_predictions(loaded(monkeypatch, task, (16, 16)), Path("picture"), samples=2)
    ((_, points, rows),) = figures
    at = np.rint(16 * points).astype(int)
    assert len(rows) == 2
    for row, y in zip(rows, parts["test_16"], strict=False):
        np.testing.assert_array_equal(row["truth"], y[at[:, 0], at[:, 1]])
        np.testing.assert_allclose(row["error"], row["input"] / 2 - row["truth"], atol=1e-6)


def test_tasks_and_models_that_cannot(monkeypatch):
    model = loaded(monkeypatch, tasks.BurgersInterval(8), 8)
    with pytest.raises(ide.InputError, match="the outputs of BurgersInterval are not inputs"):
        training.rollout_errors(model, 2)


@pytest.mark.heavy
def test_a_run_is_trained_and_evaluated(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path / "cache"))
    run = training.train(training.load_config(BURGERS, SMALL), runs=tmp_path / "runs")
    model = training.load_run(run.path)[0]
    assert (model.inputs.modes, model.inputs.points) == (3, 16)
    assert not model.control(0.0)[0].causal
    summary = run.load_summary()
    assert 0 < summary["validation_loss"] < 2
    assert not any("accuracy" in name for name in summary)
    assert {path.name for path in run.plots.iterdir()} == {"loss.png", "state_norm.png"}
    capsys.readouterr()
    output = run_here(capsys, "evaluate.py", run.path)
    said = "  relative error; burgers, validation part\nsamples: "
    assert output.startswith(f"loss: {summary['validation_loss']:.4f}{said}")
    file, figure = tmp_path / "new/points.json", tmp_path / "depth.png"

    def rows(mesh, *more):
        run_here(capsys, "evaluate.py", run.path, "--mesh", mesh, "--json", file, *more)
        return json.loads(file.read_text())

    _, own = rows("intervals=1,2", "--figure", figure)
    assert [*own] == ["intervals", "evaluations", "loss", "samples"] and figure.exists()
    # The same functions on other points: nearly the same error.
    same, other = rows("tokens=16,24")
    for row in (own, same):
        assert row["loss"] == pytest.approx(summary["validation_loss"], rel=1e-5)
    assert (same["tokens"], other["tokens"]) == (16, 24)
    assert 0 < abs(other["loss"] / same["loss"] - 1) < 0.05
