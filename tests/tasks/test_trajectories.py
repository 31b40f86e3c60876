"""Trajectories as data: what is paired, what is kept apart, and what is an input."""

import equinox as eqx
import jax
import numpy as np
import pytest
import xarray

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.contrib import ConstantCoefficients
from ide_transformer.training.measure import roll_outs
from tests.tasks.test_leaks import heat


NUMBER, TIMES, POINTS = 20, 7, 12
RANDOM = np.random.default_rng(0)
# Each number says which trajectory, time and point it is of.
STATES = np.ravel(np.arange(1, 1 + NUMBER * TIMES * POINTS)).reshape(NUMBER, TIMES, POINTS) / 7
EVEN = 0.5 * np.arange(TIMES)


def place_of(states):
    """The trajectory and the time of each of these states."""
    numbers = np.rint(np.asarray(states).reshape(len(states), -1)[:, 0] * 7).astype(int) - 1
    return np.divmod(numbers // POINTS, TIMES)


def test_pairs_are_states_of_one_trajectory_so_many_times_apart():
    task = tasks.Trajectories(STATES, EVEN, steps=(1, 3), test=0.2)
    batches = [*task.held_out(50), *task.held_out(50, part="test"), task.batch(0, 500, 0)]
    trajectories = []
    for batch in batches:
        (before, begin), (other, end) = map(place_of, (batch.inputs.inputs, batch.targets))
        np.testing.assert_array_equal(before, other)
        assert set(end - begin) == {1, 3}
        np.testing.assert_allclose(batch.inputs.duration, 0.5 * (end - begin))
        trajectories.append(set(before))
    *validation, test, learned = trajectories
    validation = set.union(*validation)
    assert (len(validation), len(test), len(learned)) == (2, 4, 14)
    assert not (validation & test or learned & (validation | test))
    # Each pair once in a pass: 6 that are one apart and 4 that are three apart.
    assert len(task.data["training"][0]) == 14 * (6 + 4)
    assert task.sizes["duration"] == 0.5


def test_times_and_what_is_constant():
    times = np.array([0.0, 1.0, 3.0, 4.0, 7.0, 7.5, 9.0])
    numbers = RANDOM.normal(size=(NUMBER, 2))
    fields = RANDOM.normal(size=(NUMBER, POINTS))
    task = tasks.Trajectories(STATES, times, parameters=numbers, constant=fields, stride=2)
    batch = next(task.held_out(64))
    trajectory, begin = place_of(batch.inputs.inputs[..., 0])
    assert set(begin) == {0, 2, 4}
    expected = times[begin + 2] - times[begin]
    np.testing.assert_allclose(batch.inputs.duration, expected)
    np.testing.assert_allclose(batch.inputs.inputs[:, -1, 1:3], numbers[trajectory], 1e-6)
    np.testing.assert_allclose(batch.inputs.inputs[..., 3], fields[trajectory], 1e-6)
    assert batch.targets.shape == (len(trajectory), POINTS, 1)
    assert (task.sizes["channels"], task.sizes["output_channels"]) == (4, 1)
    # In units of its own the model has the statistics of all channels.
    task = tasks.Trajectories(STATES, parameters=numbers, constant=fields, normalize=True)
    states, constant_channels = task.data["training"][1:]
    means = [mean for mean, _ in task.sizes["statistics"]]
    expected = [states.mean(), *constant_channels.mean((0, 1))]
    np.testing.assert_allclose(means, expected, rtol=1e-5)
    np.testing.assert_allclose(task.sizes["output_statistics"][0][1], states.std(), rtol=1e-5)
    # A roll-out keeps them.
    fed = ide.models.fed_back(batch.inputs, batch.targets)
    np.testing.assert_array_equal(fed.inputs[..., 1:], batch.inputs.inputs[..., 1:])
    np.testing.assert_array_equal(fed.inputs[..., :1], batch.targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(times=EVEN[:3]), r"float64\[3\]; .*7 increasing"),
        (dict(times=-EVEN), "7 increasing"),
        (dict(times=EVEN**2, unrolled=2), "0.25 to 2.75"),
        (dict(steps=(7,)), "steps=7, unrolled=1 .*8 times"),
        (dict(parameters=np.ones((3, 1))), r"parameters are \[3, 1\], .* as many samples"),
        (dict(constant=np.ones((20, 5))), r"constant are \[20, 5\]"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(ide.InputError, match=message):
        tasks.Trajectories(STATES, **options)


def test_windows_of_one_trajectory_are_refused():
    paths = np.moveaxis(heat(samples=6, steps=20), 1, 0)
    tasks.Trajectories(paths, validation=0.2)
    windows = np.concatenate([paths[:, i : i + 8] for i in range(0, 12, 2)])
    with pytest.raises(ide.InputError, match=r"\d+% of the steps"):
        tasks.Trajectories(windows, validation=0.2)
    # States at rest come again everywhere.
    tasks.Trajectories(np.ones((10, 5, 8)), validation=0.2)
    with pytest.raises(ide.InputError, match=r"time 1 of 2 validation .*0e\+00"):
        tasks.Trajectories(np.zeros((10, 5, 8)), validation=0.2)


def exact(operator, points=POINTS, grid="periodic"):
    """A model that solves the equation of one operator exactly, in two layers, over a time of
    0.5."""
    equation = dict(control=ide.Tied((operator,), 2), constraint=ide.Free(), duration=0.5)
    identity = dict(output_normalization=ide.Free(), modes=0, key=jax.random.key(0))
    options = dict(solver=ide.ExactFlow(), grid=grid)
    model = ide.OperatorModel(points, 1, **equation, **identity, **options)
    ones = jax.numpy.ones((1, 1))
    places = lambda m: (m.inputs.embedding.weight, m.read_out.linear.weight)  # noqa: E731
    return eqx.tree_at(places, model, (ones, ones))


def wave(velocity):
    """A model that moves functions around a circle."""
    return exact(ConstantCoefficients(1, advection=velocity))


def moved(times, speed=1 / 6):
    x = np.arange(POINTS) / POINTS
    phase = RANDOM.uniform(0, 6, (NUMBER, 1, 1))
    angle = 2 * np.pi * (x - speed * np.reshape(times, (-1, 1)))
    return np.sin(angle + phase) + 0.5 * np.cos(2 * angle + phase)


def rolled(monkeypatch, task, model, **options):
    monkeypatch.setattr(roll_outs, "evaluation_task", lambda *_: task)
    return training.roll_out(training.LoadedModel(model, None, "here"), **options)


@pytest.mark.parametrize("times", [EVEN, np.array([0.0, 0.25, 1.0, 2.5])], ids=["equal", "not"])
def test_an_exact_model_has_no_error_in_a_roll_out(monkeypatch, times):
    """In time 0.5 a wave moves by 1/12; the model has two layers."""
    model = wave(1 / 24)
    task = tasks.Trajectories(moved(times), times, test=0.2)
    rollout = rolled(monkeypatch, task, model, steps=3)
    np.testing.assert_allclose(rollout.times[:4], times[:4])
    assert max(row["error"] for row in rollout.rows) < 1e-5
    assert min(row["correlation"] for row in rollout.rows) > 1 - 1e-5
    assert rollout.rows[0]["unchanged"] > 0.1 and rollout.correlation_time is None
    # Twice as far in each step, and further than the truth.
    further = rolled(monkeypatch, task, model, steps=30, stride=2)
    assert len(further.states) == 31 and len(further.truth) == (len(times) + 1) // 2
    assert max(row["error"] for row in further.rows) < 1e-5
    unrolled = tasks.Trajectories(moved(EVEN), EVEN, unrolled=3)
    assert eqx.filter_jit(unrolled.loss)(model, unrolled.batch(0, 6, 0)).objective < 1e-5
    # At rest the error is the one of a state that does not move.
    still = rolled(monkeypatch, task, wave(0.0), steps=3)
    for row in still.rows:
        assert row["error"] == pytest.approx(row["unchanged"])
    means = np.exp(np.cumsum(np.log([x["error"] for x in still.rows])) / np.arange(1, 4))
    np.testing.assert_allclose([row["geometric_mean"] for row in still.rows], means)
    assert still.correlation_time in still.times


# Points of each trajectory's own.
MOST = 16
LENGTHS = RANDOM.integers(6, MOST + 1, NUMBER)
MASK = np.arange(MOST) < LENGTHS[:, None]
PLACES = RANDOM.random((NUMBER, MOST, 2))


def test_an_exact_model_has_no_error_on_a_file(monkeypatch, tmp_path):
    rate = 0.7
    places = np.where(MASK[..., None], PLACES, np.nan)
    first = np.cos(2 * np.pi * places[..., 0]) + 2 * places[..., 1] + 0.5
    decaying = np.exp(-rate * EVEN)[:, None] * first[:, None]
    axes = {x: (("sample", "point"), places[..., i]) for i, x in enumerate("xy")}
    states = ("sample", "time", "point"), decaying
    data = xarray.Dataset({"trajectories": states}, {"time": EVEN, **axes})
    data.to_netcdf(tmp_path / "a.nc", engine="scipy")
    task = tasks.Trajectories.build(tmp_path / "a.nc", validation=0.2, test=0.2)
    trajectory = task.data["test"][0][:, 0]
    assert set(task.lengths("test")) <= set(LENGTHS) and len(trajectory) == 4 * (TIMES - 1)
    decay = ide.equation.Damping(0.5 * rate * EVEN[1])
    model = exact(decay, (4, 4), grid="midpoint")
    rollout = rolled(monkeypatch, task, model, steps=8)
    np.testing.assert_allclose(rollout.times[:TIMES], EVEN)
    assert rollout.points.shape == (4, max(task.lengths("test")), 2)
    np.testing.assert_allclose(rollout.shares.sum(1), 1, rtol=1e-5)
    assert max(row["error"] for row in rollout.rows) < 1e-5
    assert rollout.rows[0]["unchanged"] > 0.1 and len(rollout.states) == 9
    # Errors are weighted by the shares of the points, so that padding has none.
    noise = RANDOM.normal(size=rollout.truth.shape)
    error = rollout._replace(states=rollout.truth + noise).rows[0]["error"]
    squares = [(rollout.shares * x[1] ** 2).sum(1) for x in (noise, rollout.truth)]
    assert error == pytest.approx(np.mean(np.sqrt(squares[0] / squares[1])))


def test_samples_that_blow_up_are_named_and_left_out(monkeypatch):
    paths = moved(EVEN)
    task = tasks.Trajectories(paths, EVEN, test=0.2)
    later = np.array([1.0, 1.0, 1e9, np.nan], np.float32)[:, None]
    before = np.array([1.0, 1.0, 1.0, 0.0], np.float32)[:, None]
    numbers = iter(range(10))

    def outputs(_, inputs):
        return inputs * (before if next(numbers) == 0 else later)

    monkeypatch.setattr(roll_outs, "compiled_outputs", outputs)
    rollout = rolled(monkeypatch, task, wave(0.0), steps=3)
    assert rollout.blown_up == {2: 2, 3: 2}
    assert [row["samples"] for row in rollout.rows] == [4, 2, 2]
    assert all(np.isfinite(row["error"]) for row in rollout.rows)
    assert np.isfinite(rollout.states_to_draw).all()
