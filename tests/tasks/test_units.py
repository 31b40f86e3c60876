"""Units of the data, numbers of a sample, and classes of series: models, losses and runs."""

import dataclasses
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
    return read_config(
        {
            "name": name,
            "data": {"name": "arrays", "path": str(path), "test": 0.1, **data},
            "model": {"kind": kind, **MODEL},
            "optimizer": {"warmup": 0},
            "training": {"steps": 1, "batch_size": 32, "sample": 0},
        }
    )


def started(kind, *arrays, **options):
    """A task on arrays and the model with which its run starts."""
    task = Arrays(*arrays, **options)
    return task, setup(config("a", kind, "none.npz"), task).model


def by_hand(values):
    """In standard deviations from the mean over the training part, which has half of them."""
    part = Arrays(FUNCTIONS, FUNCTIONS[:, 0], POINTS, validation=0.5).data
    rows = {tuple(row) for row in part["training"][0]}
    own = [tuple(row) in rows for row in FUNCTIONS.astype(np.float32)]
    chosen = values[np.array(own)].reshape(-1, values.shape[-1])
    axes = None if values is FUNCTIONS else 0
    return (values - chosen.mean(axes)) / chosen.std(axes)


def test_numbers_are_learned_as_if_normalized_by_hand():
    given = dict(points=POINTS, validation=0.5)
    task, model = started("function_regressor", FUNCTIONS, NUMBERS, **given)
    hand, plain = started("function_regressor", by_hand(FUNCTIONS), by_hand(NUMBERS), **given)
    one, other = (
        eqx.filter_jit(t.loss)(m, t.batch(0, 16, 0)) for t, m in ((task, model), (hand, plain))
    )
    np.testing.assert_allclose(one.loss, other.loss, rtol=2e-5)
    assert 0.3 < float(one.loss) < 3  # in variances
    outputs = eqx.filter_jit(model)(task.batch(0, 16, 0).inputs)
    assert outputs.shape == (16, 2)
    assert np.allclose(outputs.mean(0), [1e3, 0], atol=[30, 0.03])


def test_functions_are_given_in_the_units_of_the_data():
    channels = np.stack([FUNCTIONS, 1e4 * FUNCTIONS[::-1]], axis=2)
    given = dict(points=POINTS, validation=0.5, channels=True)
    task, model = started("operator_model", channels, 2 * channels, normalize=True, **given)
    inner = dataclasses.replace(
        model.with_inputs(dataclasses.replace(model.inputs, statistics=None)),
        read_out=dataclasses.replace(model.read_out, statistics=None),
    )
    (m, s), (m_out, s_out) = (
        np.transpose(task.sizes[x]) for x in ("statistics", "output_statistics")
    )
    batch = task.batch(0, 4, 0)
    hand = batch.inputs._replace(values=((batch.inputs.values - m) / s).astype(np.float32))
    found = np.asarray(eqx.filter_jit(model)(batch.inputs))
    expected = m_out + s_out * np.asarray(eqx.filter_jit(inner)(hand))
    np.testing.assert_allclose((found - expected) / s_out, 0, atol=1e-5)
    # Each channel counts in its own unit.
    loss = eqx.filter_jit(task.loss)(model, batch).loss
    same = (x / s_out for x in (found, batch.targets.values))
    relative = tasks.RelativeError()
    first, second = (x.astype(np.float32) for x in same)
    targets = batch.targets._replace(values=second)
    np.testing.assert_allclose(loss, relative.measure(first, targets)["loss"].value, rtol=1e-5)


def test_a_constant_channel_is_not_scaled():
    values = np.stack([FUNCTIONS, np.full_like(FUNCTIONS, 7)], axis=2)
    with pytest.warns(UserWarning, match="channel 1 of inputs: always 7"):
        found = statistics(values, channels=True, name="inputs")
    assert found[1] == (7.0, 1.0)
    np.testing.assert_allclose(found[0], (FUNCTIONS.mean(), FUNCTIONS.std()))


def test_parameters_are_constant_channels(tmp_path):
    viscosity = RANDOM.uniform(1, 2, 300)
    np.savez(
        tmp_path / "a.npz",
        inputs=FUNCTIONS,
        targets=FUNCTIONS + 1,
        points=POINTS,
        parameters=viscosity,
    )
    task = Arrays.build(tmp_path / "a.npz", validation=0.1, normalize=True)
    inputs, targets = task.data["training"]
    assert (task.sizes["channels"], task.sizes["output_channels"]) == (2, 1)
    assert np.ptp(inputs[..., 1], axis=1).max() == 0 and targets.shape[2:] == (1,)
    assert sorted(inputs[:, 0, 1]) == sorted(
        {*viscosity.astype(np.float32)} - {*task.data["validation"][0][:, 0, 1]}
    )


def test_numbers_of_functions_from_a_run(tmp_path, monkeypatch, capsys, no_figures):
    """A run keeps its units without its data, and measures all of another file."""
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", inputs=FUNCTIONS, targets=NUMBERS, points=POINTS)
    np.savez("b.npz", inputs=FUNCTIONS[:37] + 1e-3, targets=NUMBERS[:37], points=POINTS)
    ide.train(config("a", "function_regressor", "a.npz"))
    said = run_here(capsys, "evaluate", "runs/a", "--part", "test", "data.path=b.npz")
    assert "all of it" in said and "samples: 37" in said and "r2_2: " in said
    (tmp_path / "a.npz").unlink()
    inputs = ide.Field.at(FUNCTIONS[:5].astype(np.float32), POINTS)
    found = eqx.filter_jit(ide.load_run("runs/a")[0])(inputs)
    assert np.allclose(found.mean(0), [1e3, 0], atol=[30, 0.03])


def test_a_run_keeps_its_labels(tmp_path, monkeypatch, capsys, no_figures):
    """Other files have fewer labels, or one that the run does not know."""
    monkeypatch.chdir(tmp_path)
    for name, kinds in {"a": "cat cow dog", "b": "dog cat", "c": "dog eel", "d": "0 3"}.items():
        several = kinds.split()
        rows = [f"{i % 7},{i % 5},{several[i % len(several)]}" for i in range(60)]
        Path(f"{name}.csv").write_text("\n".join(["x,y,kind", *rows]))
    options = {"targets": "kind", "channels": True}
    given = config("a", "function_classifier", "a.csv", options=options)
    tree = given.as_tree()
    tree["model"]["options"] = {"modes": 0}
    run = ide.train(read_config(tree))
    assert run.load_labels() == ["cat", "cow", "dog"]
    means = np.array((run.load_sizes() or {})["statistics"])[:, 0]
    np.testing.assert_allclose(means, [3, 2], atol=0.3)  # of each column

    loaded = ide.load_model("runs/a", ["data.path=b.csv"])
    found = training.evaluation_task(loaded).data["validation"][1]
    assert np.bincount(found).tolist() == [30, 0, 30]
    for path, said in (
        ("c.csv", "data.path=c.csv: 'eel' is not one of the labels ['cat', 'cow', 'dog']."),
        ("d.csv", "data.path=d.csv: the weights of runs/a do not fit."),
    ):
        error = run_here(capsys, "evaluate", "runs/a", f"data.path={path}", expected=2)
        assert said in error.splitlines()[-1]


def test_numbers_of_tokens():
    tokens = RANDOM.integers(0, 5, (40, 8))
    task = Arrays(tokens, 2.0 * tokens.sum(1))
    assert task.model is ide.SequenceRegressor
    assert task.sizes["vocabulary"] == 5 and task.sizes["numbers"] is None
    loss = tasks.MeanSquaredError(((0.0, 2.0),))
    found = loss.measure(jnp.array([1.0, 3.0, 5.0]), jnp.array([1.0, 1.0, 4.0]))
    figures = loss.figures({name: float(mean.value) for name, mean in found.items()})
    expected = {"loss": 5 / 12, "rmse": (5 / 3) ** 0.5, "mae": 1.0, "r2": 1 - 5 / 6}
    assert figures == pytest.approx(expected)
