"""Predictions of models of functions: pictures, and outputs as inputs again."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.files import darcy_folder

import ide_transformer as ide
from ide_transformer import figures, tasks, training
from ide_transformer.training import functions
from ide_transformer.training.evaluation import LoadedModel


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
    monkeypatch.setattr(functions, "evaluation_task", lambda *_: task)
    return LoadedModel(model, None, Path("here"))


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
    with pytest.raises(ide.InputError, match="the outputs of BurgersInterval are no inputs"):
        training.rollout_errors(model, 2)
