"""Trajectories of which each has points of its own."""

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.tasks import Trajectories
from ide_transformer.testing import check_task
from ide_transformer.training.measure import roll_outs
from tests.models import examples as small


NUMBER, TIMES, MOST = 20, 5, 16
RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(6, MOST + 1, NUMBER)
MASK = np.arange(MOST) < LENGTHS[:, None]
POINTS = RANDOM.random((NUMBER, MOST, 2))
STATES = RANDOM.normal(size=(NUMBER, TIMES, MOST))
FURTHER = {
    "parameters": RANDOM.normal(size=(NUMBER, 2)),
    "constant": RANDOM.normal(size=(NUMBER, MOST)),
}
OPTIONS = {"validation": 0.2, "test": 0.2}


def model_of(task):
    return small.filled(
        lambda: ide.OperatorModel(
            (4, 4),
            small.WIDTH,
            **small.parts(operators=(small.attention,)),
            **{x: y for x, y in task.sizes.items() if x != "points"},
            modes=1,
            key=small.KEY,
        )
    )


def rolled(monkeypatch, task, model, **options):
    monkeypatch.setattr(roll_outs, "evaluation_task", lambda *_: task)
    return training.roll_out(training.LoadedModel(model, None, "here"), **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"steps": (1, 2)}, {"unrolled": 2, "pushforward": True}, {"normalize": True}],
    ids=["plain", "timed", "unrolled", "units"],
)
def test_it_does_what_training_relies_on(options):
    task = Trajectories(STATES, points=POINTS, mask=MASK, **FURTHER, **OPTIONS, **options)
    check_task(task)
    for batch in task.of_each_shape(4, 0):
        given = batch.inputs.inputs if "steps" in options else batch.inputs
        real = (np.asarray(given.domain.weights) > 0).sum(1)
        assert (real * 2**0.5 > given.values.shape[1] - 1).all()
    if options.get("normalize"):
        states = np.concatenate([STATES[i, :, : LENGTHS[i]].ravel() for i in range(NUMBER)])
        mean, std = task.sizes["output_statistics"][0]
        assert abs(mean - states.mean()) < 0.05 and abs(std - states.std()) < 0.05


@pytest.mark.parametrize("unrolled", [1, 2])
def test_points_that_agree_are_those_of_all_samples(monkeypatch, unrolled):
    """Batches, losses and roll-outs are the same."""
    points = POINTS[0]
    own = np.stack([points] * NUMBER)
    one, other = (
        Trajectories(STATES, points=x, **FURTHER, **OPTIONS, unrolled=unrolled)
        for x in (points, own)
    )
    assert one.sizes == other.sizes
    model = model_of(one)
    evaluate = eqx.filter_jit(one.loss)
    assert one.axes == other.axes and one.tokens_per_sample == other.tokens_per_sample
    held_out = zip(one.held_out(9), other.held_out(9), strict=True)
    for a, b in ((one.batch(3, 9, 1), other.batch(3, 9, 1)), *held_out):
        assert np.array_equal(a.inputs.values, b.inputs.values)
        assert np.array_equal(a.inputs.domain.points, b.inputs.domain.points[2])
        losses = [float(evaluate(model, x).loss) for x in (a, b)]
        np.testing.assert_allclose(*losses, rtol=1e-6)
    if unrolled > 1:
        return
    rows = [rolled(monkeypatch, x, model, steps=3).rows for x in (one, other)]
    for a, b in zip(*rows, strict=True):
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5)


def test_padding_and_the_order_of_points_change_nothing(monkeypatch):
    """Losses and roll-outs are those of each trajectory alone, whose points are shuffled."""
    task = Trajectories(STATES, points=POINTS, mask=MASK, validation=1)
    model = model_of(task)
    batches = list(task.held_out(64))
    assert len({x.inputs.values.shape[1] for x in batches}) > 1
    together = rolled(monkeypatch, task, model, steps=4, samples=NUMBER)
    for i in (int(LENGTHS.argmin()), int(LENGTHS.argmax())):
        order = RANDOM.permutation(LENGTHS[i])
        states = STATES[i : i + 1][:, :, order]
        alone = Trajectories(states, points=POINTS[i, order], validation=1)
        one = rolled(monkeypatch, alone, model, steps=4)
        np.testing.assert_allclose(one.states[:, 0], together.states[:, i, order], atol=1e-5)
        np.testing.assert_allclose(one.shares, together.shares[i, order], rtol=1e-4)
        own = dict(points=together.points[[i]], shares=together.shares[[i]])
        paths = dict(states=together.states[:, [i]], truth=together.truth[:, [i]])
        error = together._replace(**own, **paths).rows[-1]["error"]
        np.testing.assert_allclose(one.rows[-1]["error"], error, rtol=1e-4)


RATE = 0.7
TIME = 0.5 * np.arange(TIMES)


def decaying():
    """Functions at points of each trajectory's own, which decay by the rate."""
    places = np.where(MASK[..., None], POINTS, np.nan)
    first = np.cos(2 * np.pi * places[..., 0]) + 2 * places[..., 1] + 0.5
    return np.exp(-RATE * TIME)[:, None] * first[:, None]


def exact():
    """A model whose equation is the decay, in two layers."""
    model = ide.OperatorModel(
        (4, 4),
        1,
        control=ide.Tied((ide.equation.Damping(0.5 * RATE * TIME[1]),), 2),
        constraint=ide.Free(),
        mesh=ide.Mesh(solver=ide.ExactFlow()),
        output_normalization=ide.Free(),
        grid="midpoint",
        modes=0,
        duration=TIME[1],
        key=jax.random.key(0),
    )
    one = jax.numpy.ones((1, 1))
    places = lambda m: (m.inputs.embedding.weight, m.read_out.linear.weight)  # noqa: E731
    return eqx.tree_at(places, model, (one, one))


@pytest.mark.parametrize("coordinates", [True, False])
def test_an_exact_model_has_no_error_on_a_file(monkeypatch, tmp_path, coordinates):
    """Padding is NaN in the file; pictures show the points of each trajectory."""
    places = np.where(MASK[..., None], POINTS, np.nan)
    data = xarray.Dataset(
        {"trajectories": (("sample", "time", "point"), decaying())}, {"time": TIME}
    )
    if coordinates:
        data = data.assign_coords(
            {x: (("sample", "point"), places[..., i]) for i, x in enumerate("xy")}
        )
    else:
        data["points"] = ("sample", "point", "axis"), places
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    task = Trajectories.build(tmp_path / "a.nc", **OPTIONS)
    np.testing.assert_array_equal(task.times, TIME)
    which = task.data["test"][0][:, 0]
    assert set(task.lengths("test")) <= set(LENGTHS) and len(which) == 4 * (TIMES - 1)
    found = rolled(monkeypatch, task, exact(), steps=6)
    assert found.points.shape == (4, max(task.lengths("test")), 2)
    np.testing.assert_allclose(found.shares.sum(1), 1, rtol=1e-5)
    assert max(row["error"] for row in found.rows) < 1e-5
    assert found.rows[0]["unchanged"] > 0.1 and len(found.states) == 7
    drawn, filmed = [], []
    monkeypatch.setattr("ide_transformer.figures.plot_fields", lambda *x, **_: drawn.append(x))
    monkeypatch.setattr(
        "ide_transformer.figures.animation.animate_fields", lambda *x: filmed.append(x)
    )
    found.draw("a.png")
    found.animate("a.gif")
    for points, *_ in (drawn[0][1:], filmed[0][1:]):
        assert {len(x) for x in points} <= set(LENGTHS)
    for points, values in zip(filmed[0][1], filmed[0][3], strict=True):
        assert values.shape == (TIMES, len(points))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(points=POINTS[:, :9], mask=None), r"^trajectories are \[20, 5, 16\], and points"),
        (dict(points=POINTS[0]), "^mask belongs to points of each trajectory's own"),
        (dict(constant=np.ones((20, 5))), r"^constant is \[\d+, 5\]; give \[\d+, 16\]"),
        (dict(mask=MASK & (np.arange(20) != 7)[:, None]), "^points: sample 7 has only padding"),
        (
            dict(test=tasks.Paths(STATES[:2])),
            r"^test_trajectories are .* test_points are missing;",
        ),
        (dict(weights=0 * MASK - 1.0), "^weights of sample 0 are negative"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ide.InputError, match=message):
        Trajectories(STATES, **{"points": POINTS, "mask": MASK, **OPTIONS, **options})
