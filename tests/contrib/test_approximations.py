"""Successive approximations solve a linear–quadratic problem."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer import contrib, dynamics
from tests.helpers import largest


class Drift(ide.AbstractOperator):
    """`u_t = A u`, A no weight."""

    matrix: tuple = eqx.field(static=True)

    def __call__(self, u, domain):
        return u @ jnp.asarray(self.matrix).T


class Push(ide.AbstractOperator):
    """`u_t = θ`."""

    theta: jax.Array

    def __call__(self, u, domain):
        return jnp.broadcast_to(self.theta, u.shape)


def test_successive_approximations_solve_a_linear_quadratic_problem():
    """`|u(T) - target|²/2 + r/2 ∫ |θ|² dt` of `u_t = A u + θ` in steps of Heun's method, whose
    end depends linearly on θ."""
    number, h, r = 8, 0.25, 0.5
    matrix = np.array([[0.1, 1.0, 0.0], [-1.0, 0.1, 0.3], [0.0, 0.2, -0.4]])
    start, target = np.array([1.0, 0.0, -1.0]), np.array([0.5, -1.0, 0.3])
    drift = Drift(tuple(map(tuple, matrix.tolist())))
    model = ide.StateModel(
        ide.TokenDomain.uniform(1),
        3,
        control=ide.PiecewiseConstant((drift, Push(jnp.zeros((number, 3)))), h),
        constraint=ide.Free(),
        mesh=ide.Mesh(solver=diffrax.Heun()),
    )

    def loss(u):
        return jnp.sum((u - target[None]) ** 2) / 2

    found = contrib.successive_approximations(
        model, jnp.asarray(start[None]), loss, [dynamics.ControlEnergy(r / 2)], iterations=30
    )
    assert (np.diff(found.objectives) <= 0).all()
    step = np.eye(3) + h * matrix @ (np.eye(3) + h * matrix / 2)
    power, entering = np.linalg.matrix_power, h * (np.eye(3) + h * matrix / 2)
    slopes = np.hstack([power(step, number - 1 - n) @ entering for n in range(number)])
    missed = target - power(step, number) @ start
    expected = np.linalg.solve(
        slopes.T @ slopes + r * h * np.eye(3 * number), slopes.T @ missed
    )
    assert np.abs(expected).max() > 0.5
    assert largest(found.model.control.blocks[1].theta.ravel(), expected) < 1e-3
