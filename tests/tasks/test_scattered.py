"""Arrays of which each sample has points of its own, in batches of few lengths."""

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.models import Field
from ide_transformer.tasks import Arrays, buckets
from ide_transformer.testing import check_task
from tests.models import examples as small
from tests.training import stub


RANDOM = np.random.default_rng(0)
SAMPLES, MOST = 40, 24
LENGTHS = RANDOM.integers(8, MOST + 1, SAMPLES)
MASK = np.arange(MOST) < LENGTHS[:, None]
ALL_POINTS = RANDOM.random((SAMPLES, MOST, 2))
POINTS = ALL_POINTS * MASK[..., None]
INPUTS, TARGETS = RANDOM.normal(size=(2, SAMPLES, MOST)) * MASK
TASK = Arrays(INPUTS, TARGETS, POINTS, mask=MASK, validation=0.2, test=0.1)
# Few lengths, since each is a program of its own; samples of 13 and 15 points share batches.
FEW = np.arange(MOST) < np.array([13, 15, MOST])[np.arange(SAMPLES) % 3, None]


SIZES = {"grid": "midpoint", "numbers": None}


def own_lengths(batch):
    return (np.asarray(batch.inputs.domain.weights) > 0).sum(axis=1)


def test_it_does_what_training_relies_on():
    check_task(TASK)
    assert TASK.sizes == {"points": (5, 5), "grid": "midpoint", "fields": True}


def test_a_pass_sees_each_sample_once_in_batches_of_about_one_length():
    size, number = 4, len(TASK.data["training"][0])
    assert number == 28
    batches = [TASK.batch(step, size, 0) for step in range(number // size)]
    seen = [x for batch in batches for x in TASK.contents(batch)]
    assert len(set(seen)) == number
    shapes = {batch.inputs.values.shape for batch in TASK.of_each_shape(size, 0)}
    assert {batch.inputs.values.shape for batch in batches} <= shapes
    # At most one batch for each step from one length to the next holds two.
    mixed = [own_lengths(x).min() * 2**0.5 < x.inputs.values.shape[1] for x in batches]
    assert sum(mixed) < len(shapes) <= 5
    for batch in batches:
        weights = np.asarray(batch.inputs.domain.weights)
        assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)
        # Padding stands at the end.
        assert (weights > 0).sum() == own_lengths(batch).sum() and (weights[:, :8] > 0).all()


@pytest.mark.parametrize("lengths", [[5], [5, 5], [100, 71, 70, 50, 30], list(range(1, 300))])
def test_lengths_of_a_bucket_differ_by_a_factor_of_the_root_of_two(lengths):
    lengths = np.array(lengths)
    padded = buckets.padded_lengths(lengths)
    assert (padded >= lengths).all() and (padded < lengths * 2**0.5 + 1).all()
    assert set(padded) <= set(lengths)


def test_points_that_agree_are_those_of_all_samples():
    """The batches, and so the training, are the same."""
    points = RANDOM.random((MOST, 2))
    own = np.stack([points] * SAMPLES)
    values = RANDOM.normal(size=(2, SAMPLES, MOST))
    one, other = Arrays(*values, points), Arrays(*values, own)
    for step in range(3):
        a, b = one.batch(step, 5, 1), other.batch(step, 5, 1)
        assert np.array_equal(a.inputs.values, b.inputs.values)
        assert np.array_equal(a.targets.domain.weights, b.targets.domain.weights[2])
        assert np.array_equal(a.inputs.domain.points, b.inputs.domain.points[2])
    assert one.sizes == other.sizes


def test_held_out_samples_are_measured_exactly():
    """The mean over batches of several lengths is the mean over samples, each alone."""
    model = small.operator_model((5, 5), grid="midpoint", operators=(small.attention,))
    model = jax.tree.map(lambda x: x.astype("f4") if eqx.is_inexact_array(x) else x, model)
    task = Arrays(INPUTS, TARGETS, ALL_POINTS, mask=FEW, validation=0.2)
    evaluate = eqx.filter_jit(task.loss)
    batches = list(task.held_out(3))
    assert len({batch.inputs.values.shape[1] for batch in batches}) > 1
    found = tasks.averaged(evaluate(model, batch).figures for batch in batches)["loss"]
    errors = []
    for batch in batches:
        for sample, length in enumerate(own_lengths(batch)):
            x = np.asarray(batch.inputs.domain.points)[sample, :length]
            outputs = np.asarray(
                small.outputs_of(model, Field.at(batch.inputs.values[sample, :length], x))
            )
            target = batch.targets.values[sample, :length]
            w = np.sqrt(np.asarray(batch.inputs.domain.weights)[sample, :length])
            errors.append(np.linalg.norm(w * (outputs - target)) / np.linalg.norm(w * target))
    assert len(errors) == 8 and abs(found - np.mean(errors)) < 1e-5


def test_numbers_of_samples_are_learned_from_their_functions():
    numbers = (INPUTS * FEW).sum(1) / FEW.sum(1)
    task = Arrays(INPUTS, numbers, ALL_POINTS, mask=FEW, validation=0.2)
    check_task(task)
    assert task.model is ide.models.FunctionRegressor
    (mean, _), *_ = task.sizes["statistics"]
    learned, _, _, weights, _ = task.data["training"]
    assert abs(mean - learned[weights > 0].mean()) < 1e-6
    model = small.filled(
        lambda: ide.models.FunctionRegressor(
            (5, 5), small.WIDTH, **small.parts(), key=small.KEY, modes=1, **SIZES
        )
    )
    batch = next(task.held_out(4))
    field, found = batch.inputs, small.outputs_of(model, batch.inputs)
    for sample, length in enumerate(own_lengths(batch)):
        domain = jax.tree.map(lambda x: x[sample, :length], field.domain)  # noqa: B023
        alone = small.outputs_of(model, Field(field.values[sample, :length], domain))
        assert abs(alone - found[sample]) < 1e-5


def test_a_run_on_a_file_resumes(tmp_path, no_figures):
    """Padding is NaN in the file, and one part has arrays of its own."""
    there = np.arange(MOST) < np.where(LENGTHS > 16, MOST, 12)[:, None]
    missing = np.where(there, 0, np.nan)
    arrays = dict(
        zip(("inputs", "targets"), RANDOM.normal(size=(2, *there.shape)), strict=True)
    )
    arrays = {name: x + missing for name, x in arrays.items()}
    arrays["points"] = RANDOM.random((*there.shape, 2)) + missing[..., None]
    held = {f"validation_{name}": x[:6] for name, x in arrays.items()}
    np.savez(tmp_path / "a.npz", **arrays, **held)
    tree = {
        "name": "own",
        "data": {"name": "arrays", "path": str(tmp_path / "a.npz")},
        "model": {"kind": "operator_model", "width": 4, "heads": 1, "layers": 1},
        "training": {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "sample": 0},
    }
    tree["optimizer"] = {"warmup": 1}
    tree["model"] |= {"operators": ["damping"], "options": {"modes": 1}}
    whole = training.train(training.Config.model_validate(tree), runs=tmp_path)
    (tmp_path / "again").mkdir()
    again = stub.resumed(whole, tmp_path / "again", after=2)
    losses = [run.load_summary()["validation_loss"] for run in (whole, again)]
    assert losses[0] == losses[1]


def changed(place, value):
    points = POINTS.copy()
    points[place] = value
    return INPUTS, TARGETS, points


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        (changed((3, 1), POINTS[3, 0]), {}, r"^points: sample 3: .*is there twice"),
        (changed((3, 1, 0), 1.5), {}, r"^points reach from 0 to 1\.5; scale each axis"),
        ((INPUTS[:, :9], TARGETS, POINTS), {}, r"^inputs are \[40, 9\] for points \[40, 24, 2"),
        ((INPUTS, TARGETS, POINTS, np.ones(MOST)), {}, r"^weights are \[24\] for points"),
        ((INPUTS, TARGETS, POINTS, 0 * MASK - 1.0), {}, r"^weights of sample 0 are negative"),
        ((INPUTS, TARGETS, POINTS), {"mask": MASK & (np.arange(40) != 7)[:, None]}, "sample 7"),
        (
            (INPUTS, TARGETS, POINTS),
            {"validation": (INPUTS, TARGETS)},
            "validation_inputs, validation_targets, validation_points, validation_mask",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(arrays, options, message):
    with pytest.raises(ide.InputError, match=message) as refused:
        Arrays(*arrays, **{"mask": MASK, **options})
    assert len(str(refused.value)) < 250
