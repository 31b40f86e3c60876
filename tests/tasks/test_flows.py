"""Maps between functions by exponax, and by the solution of Cole and Hopf."""

import sys

import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.tasks import flows


VISCOSITY, TIME = 0.03, 0.1


def flow_of(time, viscosity, equation="Burgers", **options):
    options = dict(steps=round(time / 2e-3), points=512) | options
    coefficients = {"diffusivity": viscosity, "order": 4}
    return tasks.ExponaxFlow(time=time, equation=equation, coefficients=coefficients, **options)


BURGERS = flow_of(TIME, VISCOSITY)
VORTICITY = flow_of(1.0, 1e-2, "NavierStokesVorticity", points=64, dimension=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder for what is solved here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDE_TRANSFORMER_CACHE", str(folder))
        yield folder


def build(samples=6):
    return tasks.Burgers.build(16, VISCOSITY, TIME, samples, held_out_samples=3)


@pytest.fixture(scope="module")
def task(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "verify", lambda *_: None)
        return build()


def burgers_by_cole_hopf(u0, viscosity, time):
    """`u = -2ν φ_x / φ`, where φ solves the heat equation from `exp(-∫u0 / 2ν)`. The mean of
    u0 is zero, so φ is periodic."""
    waves = 2j * np.pi * np.fft.fftfreq(u0.shape[-1], 1 / u0.shape[-1])
    integral = np.fft.fft(u0) / np.where(waves == 0, 1, waves)
    integral = np.fft.ifft(np.where(waves == 0, 0, integral)).real
    phi = np.fft.fft(np.exp(-integral / (2 * viscosity))) * np.exp(viscosity * waves**2 * time)
    return -2 * viscosity * (np.fft.ifft(waves * phi) / np.fft.ifft(phi)).real


def test_solutions_are_those_of_cole_and_hopf(monkeypatch):
    # The last chunk is not full.
    monkeypatch.setattr(flows, "_CHUNK", 3)
    before, after = flows.solve_random(BURGERS, 4, 128, seed=3)
    start = BURGERS.draw(4, 1024, np.random.default_rng(3))
    exact = burgers_by_cole_hopf(start, VISCOSITY, TIME)[:, ::8]
    assert before.dtype == after.dtype == np.float64
    assert np.linalg.norm(after - exact) < 1e-6 * np.linalg.norm(exact)
    # Far from where they began, and steep.
    assert np.linalg.norm(after - before) > 0.3 * np.linalg.norm(before)


@pytest.mark.parametrize("flow", [BURGERS, VORTICITY])
def test_what_is_drawn_does_not_depend_on_the_grid(flow):
    fine, coarse = (flow.draw(5, points, np.random.default_rng(1)) for points in (64, 16))
    part = (slice(None), *(slice(None, None, 4),) * flow.dimension)
    np.testing.assert_allclose(fine[part], coarse, atol=1e-12)
    many = flow.draw(1600, 16, np.random.default_rng(0)).reshape(1600, -1)
    assert abs(many.std() - 1) < 0.03 and np.abs(many.mean(1)).max() < 1e-12


def test_batches_are_the_samples_of_one_part(task):
    states = task.data["training"][1]
    for batch in (task.batch(step, 4, seed=0) for step in range(3)):
        for u, v in zip(batch.inputs, batch.targets, strict=True):
            assert (v == states[(states[:, 0] == u).all(1), 1]).all()
    fine, coarse = (next(x.held_out(2)) for x in (task, task.on(ide.Mesh(tokens=4))))
    np.testing.assert_array_equal(fine.inputs[:, ::4], coarse.inputs)
    np.testing.assert_array_equal(fine.targets[:, ::4], coarse.targets)
    with pytest.raises(ide.InputError, match="times=1000000000 needs"):
        task.trajectory(10**9, 2)
    path = task.trajectory(1, 2)
    np.testing.assert_allclose(path.swapaxes(0, 1), task.data["test"][1][:2], atol=1e-6)


@pytest.mark.heavy
def test_equations_for_several_functions(cache):
    """Both functions of a wave equation turn into each other, each wave k at the rate c k."""
    options = dict(dimension=2, length=2 * np.pi, time=0.25, points=16, pairs=2)
    sizes = dict(samples=3, held_out_samples=2)
    task = tasks.Exponax.build(8, "Wave", {"speed_of_sound": 2.0}, **options, **sizes)
    assert (task.sizes["points"], task.sizes["channels"]) == ((8, 8), 2)
    height, rate = np.moveaxis(task.trajectory(2, 2), -1, 0)
    k = np.fft.fftfreq(8, 1 / 8)
    turned = 2.0 * np.hypot(k[:, None], k)
    h, v = (np.fft.fft2(x[0]) for x in (height, rate))
    for index, expected in enumerate(height):
        t = 0.25 * index
        moved = np.cos(turned * t) * h + t * np.sinc(turned * t / np.pi) * v
        np.testing.assert_allclose(np.fft.ifft2(moved).real, expected, atol=1e-9)
    batch = next(task.held_out(2, part="test"))
    assert batch.targets.values.shape == (2, 64, 2)
    for channel, first in enumerate((height, rate)):
        values = batch.targets.values[..., channel].reshape(2, 8, 8)
        np.testing.assert_allclose(values, first[1], atol=1e-5)


def test_they_are_solved_once_and_a_damaged_file_is_named(task, cache, monkeypatch):
    monkeypatch.setattr(flows, "solve_random", None)
    monkeypatch.setitem(sys.modules, "exponax", None)
    assert build().fingerprint() == task.fingerprint()
    with pytest.raises(ide.InputError, match=r"exponax.*pip install"):
        build(samples=5)
    monkeypatch.undo()
    for file in cache.glob("ExponaxFlow-*.npz"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ide.InputError, match=r"ExponaxFlow-\w+\.npz is damaged"):
        build()
    for file in cache.glob("ExponaxFlow-*.npz"):
        file.unlink()


def test_what_is_not_resolved_to_a_thousandth_is_refused(cache):
    assert flows.verify(flow_of(0.02, 1e-3), 16) < 1e-3
    # The fronts come after the first step; or the steps are long.
    for flow in (flow_of(0.02, 1e-3, pairs=8), flow_of(TIME, VISCOSITY, steps=5, points=64)):
        with pytest.raises(ide.InputError, match="is not resolved"):
            flows.functions(flow, {"test": 1}, 16)


def test_targets_on_an_interval_solve_burgers_equation():
    """By differences in x and t of the solution itself, and both ends are at rest."""
    viscosity, time, points = 0.05, 0.2, 400

    def solution(t):
        task = tasks.BurgersInterval(points, viscosity, t)
        c = task._draw(3, (7,))
        return 2 * viscosity * task.functions(c, (0,)).targets.astype(np.float64)

    h, dt = 1 / points, 2e-3
    u = solution(time)
    u_t = (solution(time + dt) - solution(time - dt)) / (2 * dt)
    flux = (u[:, 2:] ** 2 - u[:, :-2] ** 2) / (4 * h)
    diffusion = viscosity * (u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2]) / h**2
    rest = u_t[:, 1:-1] + flux - diffusion
    assert np.abs(rest).max() < 0.02 * np.abs(u_t).max()
    assert np.abs(u[:, [0, -1]]).max() < 0.01 * np.abs(u).max()
    batch = tasks.BurgersInterval(16, time=1e-9).batch(0, 4, 0)
    np.testing.assert_allclose(batch.inputs, batch.targets, rtol=1e-5)
