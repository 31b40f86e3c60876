"""Units of the data, numbers of a sample, and classes of series: models, losses and runs."""

import dataclasses
from itertools import cycle
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.models import statistics
from ide_transformer.tasks import Arrays
from ide_transformer.training.setup import setup
from tests.running import run_here
from tests.training import stub
from tests.training.stub import read_config


RANDOM = np.random.default_rng(0)
# Functions 50 + 10 Σ c_k cos kπx at irregular points, and two linear functionals of them.
POINTS = np.sort(RANDOM.random(24) ** 1.5)
C = RANDOM.normal(size=(300, 3))
WAVES = np.cos(np.pi * np.outer(np.arange(1, 4), POINTS))
FUNCTIONS = 50 + 10 * C @ WAVES
NUMBERS = np.stack([1e3 + 30 * C[:, 0], 0.01 * (C[:, 1] + C[:, 2])], axis=1)
MODEL = {"width": 16, "layers": 1, "std": 0.1, "operators": ["feed_forward"]}
MODEL |= {"options": {"modes": 2}}


def config(name, kind, path, **data):
    data = {"name": "arrays", "path": str(path), "test": 0.1, **data}
    training = {"steps": 1, "batch_size": 32, "sample": 0}
    tree = {"name": name, "data": data, "model": {"kind": kind, **MODEL}}
    return read_config({**tree, "optimizer": {"warmup": 0}, "training": training})


def started(kind, *arrays, **options):
    """A task on arrays and the model with which its run starts."""
    task = Arrays(*arrays, **options)
    return task, setup(config("a", kind, "none.npz"), task).model


def by_hand(values):
    """In standard deviations from the mean over the training part, which has half of them."""
    part = Arrays(FUNCTIONS, FUNCTIONS[:, 0], POINTS, validation=0.5).data
    rows = {tuple(row) for row in part["training"][0]}
    is_training = [tuple(row) in rows for row in FUNCTIONS.astype(np.float32)]
    training_values = values[np.array(is_training)].reshape(-1, values.shape[-1])
    axes = None if values is FUNCTIONS else 0
    return (values - training_values.mean(axes)) / training_values.std(axes)


def test_numbers_are_learned_as_if_normalized_by_hand():
    options = dict(points=POINTS, validation=0.5)
    task, model = started("function_regressor", FUNCTIONS, NUMBERS, **options)
    hand, plain = started("function_regressor", by_hand(FUNCTIONS), by_hand(NUMBERS), **options)
    loss = eqx.filter_jit(task.loss)(model, task.batch(0, 16, 0))
    loss_by_hand = eqx.filter_jit(hand.loss)(plain, hand.batch(0, 16, 0))
    np.testing.assert_allclose(loss.loss, loss_by_hand.loss, rtol=2e-5)
    assert 0.3 < float(loss.loss) < 3  # in variances
    outputs = eqx.filter_jit(model)(task.batch(0, 16, 0).inputs)
    assert outputs.shape == (16, 2)
    assert np.allclose(outputs.mean(0), [1e3, 0], atol=[30, 0.03])


def test_functions_are_given_in_the_units_of_the_data():
    channels = np.stack([FUNCTIONS, 1e4 * FUNCTIONS[::-1]], axis=2)
    options = dict(points=POINTS, validation=0.5, channels=True)
    task, model = started("operator_model", channels, 2 * channels, normalize=True, **options)
    inputs, read_out = (
        dataclasses.replace(x, statistics=None) for x in (model.inputs, model.read_out)
    )
    inner = dataclasses.replace(model.with_inputs(inputs), read_out=read_out)
    m, s = np.transpose(task.sizes["statistics"])
    m_out, s_out = np.transpose(task.sizes["output_statistics"])
    batch = task.batch(0, 4, 0)
    hand = batch.inputs._replace(values=((batch.inputs.values - m) / s).astype(np.float32))
    outputs = np.asarray(eqx.filter_jit(model)(batch.inputs))
    expected = m_out + s_out * np.asarray(eqx.filter_jit(inner)(hand))
    np.testing.assert_allclose((outputs - expected) / s_out, 0, atol=1e-5)
    # Each channel counts in its own unit.
    loss = eqx.filter_jit(task.loss)(model, batch).loss
    first, second = ((x / s_out).astype("f4") for x in (outputs, batch.targets.values))
    targets = batch.targets._replace(values=second)
    relative = tasks.RelativeError().measure(first, targets)["loss"].value
    np.testing.assert_allclose(loss, relative, rtol=1e-5)


def test_a_constant_channel_is_not_scaled():
    values = np.stack([FUNCTIONS, np.full_like(FUNCTIONS, 7)], axis=2)
    with pytest.warns(UserWarning, match="channel 1 of inputs: .* 7"):
        by_channel = statistics(values, channels=True, name="inputs")
    assert by_channel[1] == (7.0, 1.0)
    np.testing.assert_allclose(by_channel[0], (FUNCTIONS.mean(), FUNCTIONS.std()))


def test_a_run_keeps_its_labels_and_units_without_its_data(tmp_path, monkeypatch, capsys):
    """Other files have fewer labels, or one that the run does not know."""
    monkeypatch.chdir(tmp_path)
    kinds = {"a": "cat cow dog", "b": "dog cat", "c": "dog eel", "d": "0 3"}
    for name, labels in kinds.items():
        pairs = zip(range(60), cycle(labels.split()))
        rows = [f"{i % 7},{i % 5},{label}" for i, label in pairs]
        Path(f"{name}.csv").write_text("\n".join(["x,y,kind", *rows]))
    options = {"targets": "kind", "channels": True}
    tree = config("a", "function_classifier", "a.csv", options=options).as_tree()
    tree["model"] |= {"operators": ["damping"], "options": {"modes": 0}}
    run = stub.start_run(read_config(tree), Path("runs"))
    Path("a.csv").unlink()
    assert run.load_labels() == ["cat", "cow", "dog"]
    statistics = ide.load_run(run.path)[0].inputs.statistics
    np.testing.assert_allclose(np.array(statistics)[:, 0], [3, 2], atol=0.3)  # of each column
    run_on_b = ide.load_model("runs/a", ["data.path=b.csv"])
    labels = training.evaluation_task(run_on_b).data["validation"][1]
    assert np.bincount(labels).tolist() == [30, 0, 30]
    assert "all of it" in run_here(capsys, "evaluate", "runs/a", "data.path=b.csv")
    for path, message in (("c.csv", "'eel'"), ("d.csv", "classes=4, and the model classes=3")):
        output = run_here(capsys, "evaluate", "runs/a", f"data.path={path}", expected=2)
        assert f"data.path={path}: " in output and message in output


def test_numbers_of_tokens():
    tokens = RANDOM.integers(0, 5, (40, 8))
    task = Arrays(tokens, 2.0 * tokens.sum(1))
    assert task.model is ide.SequenceRegressor
    assert task.sizes["vocabulary"] == 5 and task.sizes["numbers"] is None
    loss = tasks.MeanSquaredError(((0.0, 2.0),))
    measured = loss.measure(jnp.array([1.0, 3.0, 5.0]), jnp.array([1.0, 1.0, 4.0]))
    figures = loss.figures({name: float(mean.value) for name, mean in measured.items()})
    expected = {"loss": 5 / 12, "rmse": (5 / 3) ** 0.5, "mae": 1.0, "r2": 1 - 5 / 6}
    assert figures == pytest.approx(expected)
