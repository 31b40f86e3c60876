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
OF_CLASSES = WORDS, WORDS[:, 0]


def started(path, kind, options=None, **model):
    """The task and the model of a run on arrays."""
    tree = {
        "data": {"name": "arrays", "path": str(path), "options": options or {}},
        "model": {"kind": kind, "width": 8, "heads": 1, "depth": 1, **model},
    }
    return build_start(training.Config.model_validate(tree))[:2]


def test_functions_at_points(tmp_path):
    task = Arrays(VALUES, VALUES + 1, POINTS, test=0.2)
    batch = task.batch(0, 4, 0)
    domain = ide.TokenDomain.from_points(POINTS[:, None].astype(np.float32), ((0.0, 1.0),))
    np.testing.assert_allclose(batch.targets.domain.weights, domain.weights)
    np.testing.assert_allclose(batch.inputs.values + 1, batch.targets.values, atol=1e-6)
    assert task.sizes == {"points": 24, "grid": "midpoint", "fields": True}
    assert task.tokens_per_sample == 24
    weights = np.linspace(1, 2, 24)
    domain = Arrays(VALUES, VALUES, POINTS, weights).batch(0, 1, 0).inputs.domain
    np.testing.assert_allclose(domain.weights, weights, rtol=1e-6)
    plane = np.stack([POINTS, POINTS[::-1] ** 2], 1)
    values = np.stack([VALUES, VALUES], 2)
    assert Arrays(values, values, plane, channels=True).sizes == {
        **{"points": (5, 5), "grid": "midpoint", "fields": True, "channels": 2}
    }


def test_parts_have_the_sizes_that_are_asked_for():
    numbers = np.arange(20.0)[:, None] * np.ones(3)
    task = Arrays(numbers, numbers, validation=0.2, test=0.25)
    parts = {part: set(pair[0][:, 0]) for part, pair in task.data.items()}
    sizes = {part: len(x) for part, x in parts.items()}
    assert sizes == {"validation": 4, "test": 5, "training": 11}
    assert set.union(*parts.values()) == set(range(20))
    own = Arrays(numbers, numbers, validation=(numbers[:2], numbers[:2]))
    assert own.parts == ("validation",) and len(own.data["training"][0]) == 20


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
    options = {"inputs": "x", "targets": "y"}
    task, model = started(tmp_path / "a.npz", kind, options, context=8, patch=2)
    assert eqx.filter_eval_shape(task.loss, model, task.batch(0, 4, 0)).objective.shape == ()


TOKENS = RANDOM.integers(0, 5, (20, 25))
NOT_FINITE = np.where(np.arange(24) == 3, np.nan, VALUES)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((VALUES, VALUES[:, :9]), {}, r"float64\[20, 24\] and targets float64\[20, 9\] do no"),
        ((VALUES, VALUES[:9]), {}, "inputs have 20 samples, and targets 9"),
        ((TOKENS[:, :24], VALUES), {}, "do not fit; give functions as real numbers"),
        ((IMAGES, np.eye(20)), {}, r"targets\.argmax\(1\)"),
        ((VALUES, VALUES[:, 0]), {}, "a task of your own"),
        ((VALUES, WORDS[:, 0]), {}, r"inputs\.reshape\(-1, rows, columns\)"),
        ((IMAGES, np.ones(20)), {}, r"targets\.astype\(int\)"),
        ((WORDS[:, :, None], WORDS[:, 0]), {}, "inputs / 255"),
        ((NOT_FINITE, VALUES), {}, r"should be finite; 20 are not, the first at \[0, 3\]"),
        ((VALUES, VALUES > 0), {}, "targets are bool; give"),
        ((VALUES, VALUES, POINTS[:5]), {}, r"there are 5 points, and values \[24\] of a sam"),
        ((VALUES, VALUES, 2 * POINTS), {}, r"points reach from .* to 1\.\d+; scale each axis"),
        ((VALUES, VALUES), {"causal": True, "grid": "periodic"}, "give midpoint"),
        (OF_CLASSES, {"causal": True}, "for a target at each token of a line; drop it"),
        ((WORDS - 1, WORDS[:, 0]), {}, "inputs have the integers -1 to 3; give them from 0"),
        ((WORDS, WORDS - 2), {}, "targets have the integers -2 to 2; give them from -1"),
        (OF_CLASSES, {"classes": 3}, "give them from 0 to classes - 1 = 2"),
        ((VALUES, VALUES, POINTS, POINTS[:5]), {}, "24 points and 5 weights"),
        ((VALUES, VALUES, np.where(POINTS > 0.5, 0, POINTS)), {}, r"number \d+ and an earlier"),
        (OF_CLASSES, {"validation": 0.01}, "20 samples leave 0 for validation, 0 for test"),
        (OF_CLASSES, {"validation": (WORDS[:2], WORDS[:3, 0])}, "validation_targets 3"),
        (OF_CLASSES, {"test": (WORDS[:2, :5], WORDS[:2, 0])}, r"test_inputs are int32\[2, 5\]"),
    ],
)
def test_arrays_that_do_not_fit(arguments, options, message):
    with pytest.raises(InputError, match=message):
        Arrays(*arguments, **options)


def test_files_that_do_not_fit(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=VALUES, target=VALUES)
    np.savez(tmp_path / "half.npz", inputs=VALUES, targets=VALUES, test_inputs=VALUES)
    np.savez(tmp_path / "objects.npz", inputs=np.array([{}]), targets=VALUES)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no")
    pq.write_table(pa.table({"inputs": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet")
    for name, message in (
        ("a.npz", r"there is no array targets, only inputs, target; data\.options"),
        ("half.npz", "there is no array test_targets"),
        ("objects.npz", "Object arrays cannot be loaded"),
        ("bad.npz", r"bad\.npz: .*give an \.npz file"),
        ("none.npz", r"none\.npz"),
        ("ragged.parquet", r"ragged\.parquet: .*inhomogeneous"),
        ("", "there is no array inputs, only "),
    ):
        with pytest.raises(InputError, match=message):
            Arrays.build(tmp_path / name)


SERIES = np.sin(np.arange(25) * RANDOM.uniform(0.2, 1, (20, 1)))


@pytest.mark.parametrize(
    ("whole", "kind"), [(SERIES, "operator_model"), (TOKENS, "language_model")]
)
def test_a_forecast_sees_no_later_token(tmp_path, whole, kind):
    """Targets that are later inputs are refused, or a model has to be causal."""
    for ahead in (1, 3):
        pair = whole[:, :-ahead], whole[:, ahead:]
        with pytest.raises(InputError, match=f"shifted by {ahead}, .*data.options.causal=true"):
            Arrays(*pair)
        assert not Arrays(*pair, causal=False).causal
    Arrays(whole, whole)
    np.savez(tmp_path / "a.npz", inputs=whole[:, :-1], targets=whole[:, 1:])
    options = {"causal": True}
    started(tmp_path / "a.npz", kind, options, context=24)
    sees_all = [{"kind": "attention", "options": {"causal": False}}]
    with pytest.raises(InputError, match="later tokens"):
        started(tmp_path / "a.npz", kind, options, context=24, operators=sees_all)


def test_values_without_the_points_of_their_training_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", inputs=VALUES, targets=VALUES, points=POINTS)
    task, model = started(tmp_path / "a.npz", "operator_model")
    with pytest.raises(InputError, match=r"inputs of shape \(2, 24\) without their points"):
        model(VALUES[:2])
    batch = next(task.held_out(2))
    given = ide.Field.at(batch.inputs.values, POINTS.astype(np.float32))
    found = map(np.asarray, map(eqx.filter_jit(model), (given, batch.inputs)))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("grid", ["periodic", "midpoint"])
def test_functions_on_a_coarser_grid(grid):
    half = 0.5 * (grid == "midpoint")
    x, y = (np.arange(24) + half) / 24, (np.arange(8) + half) / 8
    plane = np.tile(x[:, None] + 2 * y, (20, 1, 1))
    coarse = Arrays(plane, plane, grid=grid).with_tokens((6, 4))
    assert coarse.sizes["points"] == (6, 4)
    expected = (np.arange(6)[:, None] + half) / 6 + 2 * (np.arange(4) + half) / 4
    np.testing.assert_allclose(coarse.data["training"][0][0], expected, atol=1e-6)
    with pytest.raises(InputError, match="tokens=5: of arrays"):
        Arrays(plane, plane, grid=grid).with_tokens(5)
