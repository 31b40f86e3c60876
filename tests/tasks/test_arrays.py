"""Samples from arrays of a user's own."""

import equinox as eqx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ide_transformer as ide
from ide_transformer import InputError, training
from ide_transformer.tasks import Arrays
from ide_transformer.training.loading import build_start


RANDOM = np.random.default_rng(0)
POINTS = np.sort(RANDOM.random(24))
VALUES = RANDOM.normal(size=(20, 24))
WORDS = RANDOM.integers(0, 5, (20, 8))


def started(path, kind, options=None, **model):
    """The task and the model of a run on arrays."""
    tree = {
        "data": {"name": "arrays", "path": str(path), "options": options or {}},
        "model": {"kind": kind, "width": 8, "heads": 1, "depth": 1, **model},
    }
    return build_start(training.Config.model_validate(tree))[:2]


def test_functions_at_points():
    task = Arrays(VALUES, VALUES + 1, POINTS, validation=0.2, test=0.25)
    parts = [pair[0][:, 0] for pair in task.data.values()]
    assert sorted(map(len, parts)) == [4, 5, 11] and len(set(np.concatenate(parts))) == 20
    batch = task.batch(0, 4, 0)
    domain = ide.TokenDomain.from_points(POINTS[:, None].astype(np.float32), ((0.0, 1.0),))
    np.testing.assert_allclose(batch.targets.domain.weights, domain.weights)
    np.testing.assert_allclose(batch.inputs.values + 1, batch.targets.values, atol=1e-6)
    weights = np.linspace(1, 2, 24)
    plane, values = np.stack([POINTS, POINTS[::-1] ** 2], 1), np.stack([VALUES, VALUES], 2)
    other = Arrays(values, values, plane, weights, channels=True)
    domain = other.batch(0, 1, 0).inputs.domain
    np.testing.assert_allclose(domain.weights, weights, rtol=1e-6)
    assert other.sizes["points"] == (5, 5) and other.sizes["channels"] == 2


OF_GRID = {"points": 24, "grid": "periodic", "fields": False}
IMAGES = RANDOM.random((20, 8, 8))


@pytest.mark.parametrize(
    ("inputs", "targets", "kind", "sizes", "tokens"),
    [
        (WORDS, WORDS[:, 0] % 3, "sequence_classifier", {"vocabulary": 5, "classes": 3}, 8),
        (WORDS, np.where(WORDS > 3, -1, WORDS), "language_model", {"vocabulary": 5}, 8),
        (IMAGES, WORDS[:, 0], "image_classifier", {"image_shape": (8, 8, 1), "classes": 5}, 16),
        (VALUES, VALUES, "operator_model", OF_GRID, 24),
    ],
)
def test_what_is_learned(tmp_path, inputs, targets, kind, sizes, tokens):
    np.savez(tmp_path / "a.npz", x=inputs, y=targets)
    np.save(tmp_path / "x.npy", inputs)
    np.save(tmp_path / "y.npy", targets)
    columns = {"x": list(inputs.tolist()), "y": targets.tolist()}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    names = dict(inputs="x", targets="y", validation=0.3)
    tasks = [Arrays.build(tmp_path / name, **names) for name in ("a.npz", "", "a.parquet")]
    assert len({task.fingerprint() for task in tasks}) == 1
    assert tasks[0].sizes == sizes and tasks[0].tokens_per_sample == tokens
    # Runs on the others are those of forecasts.
    if kind.endswith("classifier"):
        options = {"inputs": "x", "targets": "y"}
        small = {"context": 8, "patch": 2, "operators": ["damping"]}
        task, model = started(tmp_path / "a.npz", kind, options, **small)
        loss = eqx.filter_eval_shape(task.loss, model, task.batch(0, 4, 0))
        assert loss.objective.shape == ()


TOKENS = RANDOM.integers(0, 5, (20, 25))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((IMAGES, np.eye(20)), {}, r"targets\.argmax\(1\)"),
        ((VALUES, WORDS[:, 0]), {}, r"inputs\.reshape\(-1, rows, columns\)"),
        ((IMAGES, WORDS[:, 0]), {"channels": True, "vocabulary": 9}, "channels and vocabulary"),
        ((VALUES, VALUES, None, np.ones(24)), {}, "weights are those of points"),
        ((WORDS, WORDS - 2), {}, "targets have the integers -2 to 2; give them from -1"),
        ((VALUES, VALUES, np.where(POINTS > 0.5, 0, POINTS)), {}, r"number \d+ and an earlier"),
    ],
)
def test_arrays_that_do_not_fit(arguments, options, message):
    with pytest.raises(InputError, match=message):
        Arrays(*arguments, **options)


def test_objects_are_not_loaded(tmp_path):
    """They would run code."""
    np.savez(tmp_path / "objects.npz", inputs=np.array([{}]), targets=VALUES)
    with pytest.raises(InputError, match="Object arrays cannot be loaded"):
        Arrays.build(tmp_path / "objects.npz")


SERIES = np.sin(np.arange(25) * RANDOM.uniform(0.2, 1, (20, 1)))


@pytest.mark.parametrize(
    ("whole", "kind"), [(SERIES, "operator_model"), (TOKENS, "language_model")]
)
def test_a_forecast_sees_no_later_token(tmp_path, whole, kind):
    """Targets that are later inputs are refused, or a model has to be causal."""
    pair = whole[:, :-3], whole[:, 3:]
    with pytest.raises(InputError, match=r"shifted by 3, .*data\.options\.causal=true"):
        Arrays(*pair)
    assert not Arrays(*pair, causal=False).causal
    np.savez(tmp_path / "a.npz", inputs=whole[:, :-1], targets=whole[:, 1:])
    options = {"causal": True}
    started(tmp_path / "a.npz", kind, options, context=24)
    sees_all = [{"kind": "attention", "options": {"causal": False}}]
    with pytest.raises(InputError, match="later tokens"):
        started(tmp_path / "a.npz", kind, options, context=24, operators=sees_all)


@pytest.mark.parametrize("grid", ["periodic", "midpoint"])
def test_functions_on_a_coarser_grid(grid):
    half = 0.5 * (grid == "midpoint")
    x, y = (np.arange(24) + half) / 24, (np.arange(8) + half) / 8
    plane = np.tile(x[:, None] + 2 * y, (20, 1, 1))
    coarse = Arrays(plane, plane, grid=grid).with_tokens((6, 4))
    assert coarse.sizes["points"] == (6, 4)
    expected = (np.arange(6)[:, None] + half) / 6 + 2 * (np.arange(4) + half) / 4
    np.testing.assert_allclose(coarse.data["training"][0][0], expected, atol=1e-6)
