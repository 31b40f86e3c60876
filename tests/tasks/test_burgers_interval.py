import numpy as np
import pytest

from ide_transformer import tasks


def test_targets_solve_burgers_equation():
    """By differences in x and t of the solution itself, and both ends are at rest."""
    viscosity, time, points = 0.05, 0.2, 400

    def solution(t):
        task = tasks.BurgersInterval(points, viscosity, t)
        c = task._drawn(3, (7,))
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


def test_samples_of_one_held_out_block_share_their_points():
    task = tasks.BurgersInterval(8, points="random", held_out_samples=20)
    x = [batch.inputs.domain.points[:, 0] for batch in task.held_out(1, part="test")]
    assert len(x) == 20 and (x[0] == x[15]).all() and not (x[15] == x[16]).any()


@pytest.mark.parametrize("points", ["random", "clustered"])
def test_each_batch_has_points_of_its_own(points):
    task = tasks.BurgersInterval(24, points=points)
    batch = task.batch(3, 4, 1)
    x = np.asarray(batch.inputs.domain.points)[:, 0]
    assert len(np.unique(x)) == 24 and x.min() >= 0 and x.max() <= 1
    np.testing.assert_array_equal(batch.inputs.domain.weights, batch.targets.domain.weights)
    fine = tasks.BurgersInterval(4000).batch(3, 4, 1)
    nearest = np.clip(np.rint(4000 * x - 0.5).astype(int), 0, 3999)
    np.testing.assert_allclose(
        batch.targets.values, fine.targets[:, nearest], atol=2e-3 * np.abs(fine.targets).max()
    )
    plain = tasks.BurgersInterval(24, points=points, weights="equal").batch(3, 4, 1)
    assert plain.inputs.domain.weights is None and plain.targets.domain.weights is not None
    if points == "clustered":
        # Twelve of them are in a window of length 1/8.
        assert min(np.sort(x)[11:] - np.sort(x)[:13]) < 1 / 8
