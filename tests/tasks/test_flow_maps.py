import importlib
import sys

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.tasks import flows


VISCOSITY, TIME, POINTS = 0.03, 0.1, 16


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for what is solved here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDE_TRANSFORMER_CACHE", str(folder))
        yield folder


def build(viscosity=VISCOSITY, time=TIME, samples=6):
    return tasks.Burgers.build(POINTS, viscosity, time, samples, held_out_samples=3)


@pytest.fixture(scope="module")
def task(cache):
    return build()


def burgers_by_cole_hopf(u0, viscosity, time):
    """`u = -2ν φ_x / φ`, where φ solves the heat equation from `exp(-∫u0 / 2ν)`. The mean of
    u0 is zero, so φ is periodic."""
    waves = 2j * np.pi * np.fft.fftfreq(u0.shape[-1], 1 / u0.shape[-1])
    integral = np.fft.fft(u0) / np.where(waves == 0, 1, waves)
    integral = np.fft.ifft(np.where(waves == 0, 0, integral)).real
    phi = np.fft.fft(np.exp(-integral / (2 * viscosity))) * np.exp(viscosity * waves**2 * time)
    return -2 * viscosity * (np.fft.ifft(waves * phi) / np.fft.ifft(phi)).real


def test_solutions_are_those_of_cole_and_hopf():
    flow = tasks.BurgersFlow(TIME, VISCOSITY)
    before, after = flows.solved(flow, 4, 128, seed=3)
    exact = burgers_by_cole_hopf(
        flow.drawn(4, 1024, np.random.default_rng(3)), VISCOSITY, TIME
    )[:, ::8]
    assert before.dtype == after.dtype == np.float64
    assert np.linalg.norm(after - exact) < 1e-6 * np.linalg.norm(exact)
    # Far from where they began, and steep.
    assert np.linalg.norm(after - before) > 0.3 * np.linalg.norm(before)


def test_half_the_step_and_twice_the_points_give_the_same():
    assert flows.verify(tasks.BurgersFlow(TIME, VISCOSITY), POINTS) < 1e-5


def test_functions_do_not_depend_on_the_grid():
    flow = tasks.BurgersFlow(TIME, VISCOSITY)
    fine, coarse = (flow.drawn(5, points, np.random.default_rng(1)) for points in (64, 16))
    np.testing.assert_allclose(fine[:, ::4], coarse, atol=1e-13)
    many = flow.drawn(4000, 16, np.random.default_rng(0))
    assert abs(many.std() - 1) < 0.02 and np.abs(many.mean(1)).max() < 1e-13


def test_samples_of_a_chunk_that_is_not_full(monkeypatch):
    flow = tasks.BurgersFlow(0.01, VISCOSITY)
    whole = flows.solved(flow, 5, POINTS, seed=0)[1]
    monkeypatch.setattr(flows, "_CHUNK", 2)
    np.testing.assert_allclose(flows.solved(flow, 5, POINTS, seed=0)[1], whole, atol=1e-12)


def test_batches_are_the_samples_of_one_part(task):
    parts, train = task.data.values(), task.data["training"]
    assert [part.after.shape for part in parts] == [(6, POINTS), (3, POINTS), (3, POINTS)]
    first = {row.tobytes() for part in parts for row in part.before}
    assert len(first) == 12
    seen = [task.batch(step, 4, seed=0) for step in range(3)]
    assert seen[0].inputs.dtype == np.float32
    rows = np.concatenate([batch.inputs for batch in seen])
    assert (np.sort(rows, axis=0) == np.sort(np.repeat(train.before, 2, 0), axis=0)).all()
    for batch in seen:
        for u, v in zip(batch.inputs, batch.targets, strict=True):
            assert (v == train.after[(train.before == u).all(1)]).all()
    held_out = np.concatenate([batch.targets for batch in task.held_out(2)])
    assert (held_out == task.data["validation"].after).all()


def test_they_are_solved_once(task, monkeypatch):
    monkeypatch.setattr(flows, "solved", None)
    monkeypatch.setitem(sys.modules, "exponax", None)
    again = build()
    assert again.fingerprint() == task.fingerprint()
    with pytest.raises(ide.InputError, match=r"exponax, which is not installed; run: pip inst"):
        build(samples=5)


def test_a_damaged_file_is_named(cache, task):
    (path,) = cache.glob("BurgersFlow-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ide.InputError, match=r"BurgersFlow-\w+\.npz is damaged.*Delete it"):
        build()
    path.write_bytes(whole)


def test_what_other_code_has_solved_is_not_read(cache, monkeypatch, tmp_path):
    """The code of a flow of your own is part of the name of the file."""
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "own_flow.py"
    text = "from ide_transformer import tasks\nclass Own(tasks.BurgersFlow):\n    rate = 1\n"
    module.write_text(text)
    flow = importlib.import_module("own_flow").Own(TIME, VISCOSITY)
    solved = []
    monkeypatch.setattr(
        flows, "_computed", lambda *_: (solved.append(1), {"a": np.zeros((2, 1, 8))})[1]
    )
    for rate in (1, 1, 2):
        module.write_text(text.replace("1", str(rate)))
        flows.functions(flow, {"a": 1}, 8)
    assert len(solved) == 2


def test_a_viscosity_that_is_not_resolved(cache):
    before = sorted(cache.iterdir())
    message = r"viscosity=0.0001\) is not resolved: .* Raise the viscosity"
    with pytest.raises(ide.InputError, match=message):
        build(viscosity=1e-4, time=0.2)
    assert sorted(cache.iterdir()) == before
