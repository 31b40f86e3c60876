import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import tasks
from ide_transformer.tasks import Functions, flows


VISCOSITY, TIME, POINTS = 4e-3, 0.1, 8
FLOW = tasks.NavierStokesFlow(TIME, VISCOSITY)


def test_solutions_satisfy_the_equation():
    """By a central difference in t and Fourier derivatives of NumPy in the plane."""
    u = flows.solved(tasks.NavierStokesFlow(0.01, VISCOSITY), 2, 64, 0, times=2)
    k = 2 * np.pi * np.fft.fftfreq(64, 1 / 64)
    p, q = k[:, None], k[None]
    square = np.where(p**2 + q**2 == 0, 1, p**2 + q**2)
    spectrum = np.fft.fft2(u[1])
    stream = -spectrum / square

    def back(x):
        return np.fft.ifft2(x).real

    v = back(1j * q * stream), back(-1j * p * stream)
    carried = v[0] * back(1j * p * spectrum) + v[1] * back(1j * q * spectrum)
    expected = VISCOSITY * back(-square * spectrum) - carried
    u_t = (u[2] - u[0]) / 0.02
    assert np.abs(u_t - expected).max() < 1e-3 * np.abs(expected).max()
    assert np.abs(carried).max() > 0.1 * np.abs(u_t).max()


def test_what_is_drawn_does_not_depend_on_the_grid():
    fine, coarse = (FLOW.drawn(3, n, np.random.default_rng(1)) for n in (32, 16))
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, atol=1e-12)
    many = FLOW.drawn(400, 16, np.random.default_rng(0))
    assert abs(many.std() - 1) < 0.03 and np.abs(many.mean((1, 2))).max() < 1e-12


@pytest.fixture
def task(monkeypatch):
    def functions(flow, sizes, points):
        values = np.arange(3.0 * points**2, dtype=np.float32).reshape(3, points, points)
        return {name: Functions(values, -values) for name in sizes}

    monkeypatch.setattr("ide_transformer.tasks.flows.functions", functions)
    return tasks.NavierStokes.build(POINTS, VISCOSITY, TIME, 3, 3)


def test_batches_are_fields_on_the_torus(task):
    batch = next(task.held_out(2))
    assert batch.inputs.values.shape == (2, 64) and batch.inputs.domain.grid == (8, 8)
    np.testing.assert_array_equal(batch.targets.values, -batch.inputs.values)
    coarse = next(task.on(ide.Mesh(tokens=4)).held_out(2)).inputs
    expected = batch.inputs.values.reshape(2, 8, 8)[:, ::2, ::2].reshape(2, 16)
    np.testing.assert_array_equal(coarse.values, expected)
    assert task.sizes == {"points": (8, 8)} and task.tokens_per_sample == 64


@pytest.mark.heavy
def test_pairs_go_on_where_the_last_ones_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("IDE_TRANSFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(flows, "_VERIFIED", 1)
    monkeypatch.setattr(tasks.NavierStokesFlow, "points", 16)
    monkeypatch.setattr(tasks.NavierStokesFlow, "waves", 1)
    task = tasks.NavierStokes.build(POINTS, 0.05, TIME, samples=2, held_out_samples=2)
    before, after = task.data["training"]
    assert before.shape == (8, 8, 8) and before.dtype == np.float32
    np.testing.assert_array_equal(before[2:], after[:-2])
    path = task.trajectory(3, 1)
    assert path.shape == (4, 1, 8, 8)
    np.testing.assert_allclose(path[1, 0], task.data["test"].after[0], atol=1e-5)
