"""Functions at points: of all samples, of each sample's own, and of each part; arrays and
trajectories alike."""

import numpy as np
import pytest

from ide_transformer import InputError, tasks
from ide_transformer.tasks import Arrays, Paths, Trajectories
from ide_transformer.testing import check_task


RANDOM = np.random.default_rng(0)
SAMPLES, TIMES, MOST = 40, 4, 24
LENGTHS = RANDOM.integers(8, MOST + 1, SAMPLES)
MASK = np.arange(MOST) < LENGTHS[:, None]
ALL_POINTS = RANDOM.random((SAMPLES, MOST, 2))
POINTS = ALL_POINTS * MASK[..., None]
INPUTS, TARGETS = RANDOM.normal(size=(2, SAMPLES, MOST)) * MASK
STATES = RANDOM.normal(size=(SAMPLES, TIMES, MOST))
NUMBERS = RANDOM.normal(size=(SAMPLES, 2))
# Few lengths, since each is a program of its own; samples of 13 and 15 points share batches.
FEW = np.arange(MOST) < np.array([13, 15, MOST])[np.arange(SAMPLES) % 3, None]


def pairs(points=None, weights=None, **options):
    return Arrays(INPUTS, TARGETS, points, weights, **options)


def paths(points=None, weights=None, **options):
    return Trajectories(STATES, points=points, weights=weights, **options)


BOTH = pytest.mark.parametrize("build", [pairs, paths])


def own_lengths(batch):
    return (np.asarray(batch.inputs.domain.weights) > 0).sum(axis=1)


FURTHER = {"parameters": NUMBERS, "constant": INPUTS}


@pytest.mark.parametrize(
    "task",
    [
        lambda **own: Arrays(INPUTS, NUMBERS, **own),
        lambda **own: paths(**own, **FURTHER, steps=(1, 2), normalize=True),
    ],
    ids=["numbers", "times"],
)
def test_it_does_what_training_relies_on(task):
    check_task(task(points=POINTS, mask=MASK, validation=0.2, test=0.2))


def test_units_and_coarser_functions_are_of_all_columns():
    """Padding has no units; what is constant has a coarser grid too."""
    task = paths(POINTS, mask=MASK, **FURTHER, normalize=True, validation=1)
    numbers = [STATES[np.repeat(MASK[:, None], TIMES, 1)], INPUTS[MASK]]
    (mean, std), *_, last = task.sizes["statistics"]
    np.testing.assert_allclose([mean, std], [numbers[0].mean(), numbers[0].std()], rtol=1e-4)
    np.testing.assert_allclose(last, [numbers[1].mean(), numbers[1].std()], rtol=1e-4)
    for further in ({"parameters": NUMBERS}, {"constant": INPUTS}):
        batch = paths(**further).with_tokens(8).batch(0, 3, 0)
        assert batch.inputs.shape[1] == batch.targets.shape[1] == 8


def test_a_pass_sees_each_sample_once_in_batches_of_about_one_length():
    task = pairs(POINTS, mask=MASK, validation=0.2, test=0.1)
    assert task.sizes == {"points": (5, 5), "grid": "midpoint", "fields": True}
    size, num_samples = 4, len(task.data["training"][0])
    assert num_samples == 28
    batches = [task.batch(step, size, 0) for step in range(num_samples // size)]
    contents = [x for batch in batches for x in task.contents(batch)]
    assert len(set(contents)) == num_samples
    shapes = {batch.inputs.values.shape for batch in task.of_each_shape(size, 0)}
    assert {batch.inputs.values.shape for batch in batches} <= shapes
    # At most one batch for each step from one length to the next holds two.
    mixed = [own_lengths(x).min() * 2**0.5 < x.inputs.values.shape[1] for x in batches]
    assert sum(mixed) < len(shapes) <= 5
    for batch in batches:
        weights = np.asarray(batch.inputs.domain.weights)
        assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
        # Padding stands at the end.
        assert (weights > 0).sum() == own_lengths(batch).sum() and (weights[:, :8] > 0).all()


@BOTH
def test_points_that_agree_are_those_of_all_samples(build):
    shared, repeated = (build(x) for x in (ALL_POINTS[0], np.stack([ALL_POINTS[0]] * SAMPLES)))
    assert shared.sizes == repeated.sizes
    assert shared.tokens_per_sample == repeated.tokens_per_sample
    batches = zip(shared.held_out(9), repeated.held_out(9), strict=True)
    for a, b in ((shared.batch(3, 5, 1), repeated.batch(3, 5, 1)), *batches):
        assert np.array_equal(a.inputs.values, b.inputs.values)
        assert np.array_equal(a.targets.domain.weights, b.targets.domain.weights[2])
        assert np.array_equal(a.inputs.domain.points, b.inputs.domain.points[2])


def test_held_out_samples_are_measured_exactly():
    """The mean over batches of several lengths is the mean over samples, without padding."""
    task = pairs(ALL_POINTS, mask=FEW, validation=0.2)
    batches = list(task.held_out(3))
    assert len({batch.inputs.values.shape[1] for batch in batches}) > 1
    figures = (task.loss.measure(x.inputs.values, x.targets) for x in batches)
    errors = []
    for batch in batches:
        for sample, length in enumerate(own_lengths(batch)):
            u, v = (x.values[sample, :length] for x in batch)
            w = np.asarray(batch.inputs.domain.weights)[sample, :length]
            errors.append(np.sqrt(np.sum(w * (u - v) ** 2) / np.sum(w * v**2)))
    assert len(errors) == 8
    np.testing.assert_allclose(tasks.averaged(figures)["loss"], np.mean(errors), rtol=1e-5)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_a_part_has_points_weights_and_times_of_its_own(part):
    x = np.linspace(0, 1, 9) ** 2
    weights = np.linspace(1, 2, 9)
    some = RANDOM.normal(size=(3, 2, 9))
    parts = {"validation": 0.2, part: (some[:, 0], some[:, 1], x, weights)}
    data = pairs(ALL_POINTS[0, :, 0], **parts)
    parts[part] = Paths(some, points=x, weights=weights, times=np.array([0.0, 0.25]))
    path = paths(ALL_POINTS[0, :, 0], **parts)
    for task in (data, path):
        batch = next(task.held_out(3, part=part))
        inputs = batch.inputs if task is data else batch.inputs.inputs
        np.testing.assert_allclose(inputs.domain.points[:, 0], x)
        np.testing.assert_allclose(batch.targets.domain.weights, weights)
        np.testing.assert_allclose(batch.targets.values, some[:, 1], rtol=1e-6)
        assert len(task.batch(0, 3, 0).targets.domain.points) == MOST
    np.testing.assert_allclose(batch.inputs.duration, 0.25)
    np.testing.assert_allclose(path.times_up_to(2, part), [0, 0.25, 0.5])
    np.testing.assert_allclose(path.batch(0, 3, 0).inputs.duration, 1)
    # On a grid it has only another number of points.
    data = pairs(**{part: (some[:, 0], some[:, 1])})
    path = paths(**{part: Paths(np.tile(some, (1, 2, 1)))})
    for task in (data, path):
        assert next(task.held_out(3, part=part)).inputs.shape == (3, 9)


PARTS = {
    "another width": dict(states=STATES[:2, ..., None]),
    "other parameters": dict(parameters=NUMBERS[:2, :1]),
    "a constant in place of parameters": dict(parameters=None, constant=STATES[:2, 0]),
    "times": dict(times=np.arange(3)),
    "points": dict(points=ALL_POINTS[0]),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_compared_when_they_are_read(name):
    part = Paths(STATES[:2], NUMBERS[:2])._replace(**PARTS[name])
    with pytest.raises(InputError, match=r"^(validation_|times)"):
        Trajectories(STATES, parameters=NUMBERS, validation=part)


def test_padding_of_a_file_may_be_nan(tmp_path):
    arrays = {"inputs": INPUTS, "targets": TARGETS, "points": ALL_POINTS}
    for name, x in arrays.items():
        arrays[name] = np.where(MASK if x.ndim == 2 else MASK[..., None], x, np.nan)
    validation = {f"validation_{name}": x[:6] for name, x in arrays.items()}
    np.savez(tmp_path / "a.npz", **arrays, **validation)
    part = INPUTS[:6], TARGETS[:6], POINTS[:6], None, MASK[:6]
    task = pairs(POINTS, mask=MASK, validation=part)
    assert Arrays.build(tmp_path / "a.npz").fingerprint() == task.fingerprint()


def changed(place, value):
    points = POINTS.copy()
    points[place] = value
    return points


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (changed((3, 1), POINTS[3, 0]), {}, "^points: sample 3: .*occurs twice"),
        (changed((3, 1, 0), 1.5), {}, r"^points reach from 0 to 1\.5; scale each axis"),
        (POINTS[:, :9], {}, r" \[40, .*24\] do not fit points \[40, 9, 2\]"),
        (POINTS[0], {}, "a mask to points of each sample"),
        (
            POINTS,
            {"mask": MASK & (np.arange(40) != 7)[:, None]},
            "^points: sample 7: all points are padding",
        ),
        (POINTS, {"weights": np.ones(MOST)}, r"^weights \[24\] do not fit points"),
        (POINTS, {"weights": 0 * MASK - 1.0}, "^weights of sample 0 are negative"),
        (None, {"weights": np.ones(MOST), "mask": None}, "^weights belong to points"),
        (POINTS, {"validation": (INPUTS, TARGETS)}, "^validation_points are missing"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(points, options, message):
    with pytest.raises(InputError, match=message) as refused:
        pairs(points, **{"mask": MASK, **options})
    assert len(str(refused.value)) < 250
