"""Predictions of functions, whose outputs are inputs again."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, figures, tasks, training
from ide_transformer.training.measure import predictions, roll_outs
from tests.helpers import built
from tests.tasks.files import darcy_folder


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of the figures; the outputs of all models are half of their inputs."""
    figures_drawn = []
    monkeypatch.setattr(
        figures, "plot_fields", lambda *arguments, **_: figures_drawn.append(arguments)
    )

    def half(_, inputs):
        inputs = getattr(inputs, "inputs", inputs)  # without its time
        return getattr(inputs, "values", inputs) / 2

    for module in (predictions, roll_outs):
        monkeypatch.setattr(module, "compiled_outputs", half)
    return figures_drawn


def loaded(monkeypatch, task, points):
    key = jax.random.key(0)
    linear = built(lambda: (ide.Linear(9, 4, bias=True, key=key), ide.Linear(4, 1, key=key)))
    model = ide.Model(
        ide.models.FunctionInputs(points, linear[0], modes=2),
        ide.Tied((ide.Damping(jnp.zeros(4)),), 1),
        ide.Free(),
        ide.models.FunctionValues(linear[1]),
    )
    for module in (predictions, roll_outs):
        monkeypatch.setattr(module, "evaluation_task", lambda *_: task)
    return training.LoadedModel(model, None, Path("here"))


def test_classes_at_points_are_no_functions(monkeypatch):
    model = loaded(monkeypatch, contrib.Maze(5), (9, 9))
    with pytest.raises(ide.InputError, match="classes"):
        training.draw_predictions(model, Path("picture"))


def test_a_roll_out_is_drawn_with_its_errors(monkeypatch, drawn):
    """A flow that halves its functions has no error; one that keeps them has all of it."""
    other_paths, truth = np.random.default_rng(0).normal(size=(2, 4, 8, 8))[:, :2]
    path = np.stack([truth, truth / 2, truth / 4, truth / 4], axis=1)
    held_out = {x: tasks.Paths(path) for x in ("validation", "test")}
    training_paths = np.stack([other_paths] * 4, axis=1) * np.arange(1, 5)[:, None, None]
    task = tasks.Trajectories(training_paths, 7 + 0.5 * np.arange(4), unrolled=2, **held_out)
    rollout = training.roll_out(loaded(monkeypatch, task, (8, 8)), 5)
    assert [row["time"] for row in rollout.rows] == [0.5, 1.0, 1.5]
    for name, values in {"error": [0, 0, 0.5], "spectrum": [0, 0, 0.75]}.items():
        np.testing.assert_allclose([row[name] for row in rollout.rows], values, atol=1e-6)
    rollout.draw(Path("picture"))
    ((_, points, samples),) = drawn
    prediction = samples["sample 2"]["prediction"]
    np.testing.assert_allclose(prediction, truth[1].ravel() / 8, rtol=1e-6)
    np.testing.assert_allclose(points[9], [1 / 8, 1 / 8])


def test_predictions_are_drawn_at_their_points(monkeypatch, drawn, tmp_path):
    parts = darcy_folder(tmp_path)
    task = contrib.Darcy(tmp_path, samples=20, points="random", subset=40)
    model = loaded(monkeypatch, task, (16, 16))
    training.draw_predictions(model, Path("picture"), samples=2)
    ((_, points, rows),) = drawn
    at = np.rint(16 * points).astype(int)
    assert len(rows) == 2
    for row, y in zip(rows.values(), parts["test_16"], strict=False):
        np.testing.assert_array_equal(row["truth"], y[at[:, 0], at[:, 1]])
        np.testing.assert_allclose(row["error"], row["input"] / 2 - row["truth"], atol=1e-6)
