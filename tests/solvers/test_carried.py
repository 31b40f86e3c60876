"""Schemes that carry something from step to step: a velocity, or the steps before."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from solvers.linear_problem import (
    WIDTH,
    Matrix,
    difference,
    exact,
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)

import ide_transformer as ide
from ide_transformer.solvers.multistep import phi


@pytest.fixture(scope="module")
def layered():
    return layered_equation()


def test_without_lookahead_nesterov_is_the_heavy_ball(layered):
    nesterov, heavy = (
        final(layered, solver, steps_per_interval=2)
        for solver in (ide.Nesterov(0.6, 0.0, 0.8), ide.HeavyBall(0.6, 0.8))
    )
    assert difference(nesterov, heavy) < 1e-13


def test_without_momentum_the_heavy_ball_is_lie_trotter(layered):
    heavy, plain = (
        final(layered, solver) for solver in (ide.HeavyBall(0.0, 1.0), ide.LieTrotter())
    )
    assert difference(heavy, plain) < 1e-13


def test_coefficients_of_zero_stay_zero(layered):
    def loss(solver):
        return jnp.sum(ide.solve(layered, initial_state(), solver=solver).u1 ** 2)

    gradient = eqx.filter_jit(eqx.filter_grad(loss))
    at_zero, near = gradient(ide.Nesterov(0.0, 0.0)), gradient(ide.Nesterov(0.01, 0.01))
    for name in ("momentum", "lookahead"):
        assert getattr(at_zero, name).raw == 0
        assert abs(getattr(near, name).raw) > 1e-3


@pytest.mark.parametrize(
    ("solver", "first"),
    [(ide.AdamsBashforth(3), diffrax.Heun()), (ide.Leapfrog(), diffrax.Euler())],
    ids=("adams_bashforth", "leapfrog"),
)
def test_multistep_schemes_start_again_where_the_field_jumps(layered, solver, first):
    assert difference(final(layered, solver), final(layered, first)) < 1e-13


def test_adams_bashforth_uses_the_steps_before():
    """Two steps of one layer, by hand."""
    (matrix,) = matrices(1)
    u1 = final(tied_equation(matrix, intervals=1), ide.AdamsBashforth(2), steps_per_interval=2)
    h, u0 = 0.5, np.asarray(initial_state())
    first = h * u0 @ matrix
    u = u0 + 0.5 * (first + h * (u0 + first) @ matrix)
    u = u + 1.5 * h * u @ matrix - 0.5 * first
    assert difference(u1, u) < 1e-14


class Constant(ide.AbstractOperator):
    """A field that does not depend on the state."""

    field: jnp.ndarray

    def __call__(self, u, domain):
        return jnp.broadcast_to(self.field, u.shape)


def test_exponential_schemes_do_not_mind_stiff_damping():
    (matrix,) = matrices(1)
    rate, source = 200.0, np.arange(1.0, WIDTH + 1)
    constant = Constant(jnp.asarray(source))
    equation = tied_equation(matrix, constant, ide.Damping(rate))
    # The solution is soon at rest.
    rest = -np.linalg.solve((matrix - rate * np.eye(WIDTH)).T, source)
    rest = np.broadcast_to(rest, initial_state().shape)
    for solver in (ide.ExponentialEuler(), ide.ETDAB2()):
        u1 = final(equation, solver, steps_per_interval=4)
        assert difference(u1, rest) < 1e-2 * np.abs(rest).max()
    assert not difference(final(equation, diffrax.Euler()), rest) < 1e3


def test_exponential_schemes_solve_a_damping_exactly():
    equation = tied_equation(Matrix(jnp.zeros((WIDTH, WIDTH))), ide.Damping(0.7))
    expected = exact(-0.7 * np.eye(WIDTH))
    for solver in (ide.ExponentialEuler(), ide.ETDAB2()):
        assert difference(final(equation, solver), expected) < 1e-14


def test_phi_functions_and_their_derivatives_in_single_precision():
    """Against `Σ_k z^k / (k + n)!` in double precision."""
    size = np.logspace(-9, 0.9, 60, dtype=np.float32)
    z = np.concatenate([-size, [0.0], size]).astype(np.float32)
    wide = z.astype(float)[:, None]
    k = np.arange(60)
    for n in (1, 2):
        factor = np.exp(-scipy.special.gammaln(k + n + 1))
        expected = np.sum(wide**k * factor, axis=1)
        slope = np.sum(k[1:] * wide ** (k[1:] - 1) * factor[1:], axis=1)
        found, found_slope = jax.vmap(jax.value_and_grad(ft.partial(phi, n)))(jnp.asarray(z))
        assert found.dtype == found_slope.dtype == jnp.float32
        assert np.max(np.abs(found / expected - 1)) < 2e-6, n
        assert np.max(np.abs(found_slope / slope - 1)) < 5e-6, n
