"""Splitting schemes, schemes that carry something from step to step, and exponential ones; the
published blocks are tested in tests/published/ and tests/contrib/."""

import functools as ft

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special

import ide_transformer as ide
from ide_transformer.solvers.multistep import phi
from tests.helpers import largest, observed_order
from tests.models import examples
from tests.solvers.linear_problem import (
    TOKENS,
    WIDTH,
    Matrix,
    equation_of,
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)


def test_strang_on_three_operators():
    up = [(0, 0.0, 0.5), (1, 0.0, 0.5), (2, 0.0, 1.0)]
    assert ide.Strang().sub_steps(3) == [*up, (1, 0.5, 1.0), (0, 0.5, 1.0)]


def test_compositions():
    """Neighbouring sub-steps of one operator are one."""
    steps, outer = ide.Yoshida4().sub_steps(2), 1 / (2 - 2 ** (1 / 3))
    assert [index for index, *_ in steps] == [0, 1, 0, 1, 0, 1, 0]
    assert steps[2][1:] == pytest.approx((outer / 2, outer + (1 - 2 * outer) / 2))
    suzuki, yoshida = (x.coefficients for x in (ide.Suzuki4(), ide.Yoshida4()))
    assert len(suzuki) == 5 and min(suzuki) > min(yoshida)
    for coefficients in (suzuki, yoshida):
        sums = [sum(x**power for x in coefficients) for power in (1, 3)]
        assert sums == pytest.approx([1, 0], abs=1e-14)


def test_a_state_of_several_arrays():
    """Störmer and Verlet's method for a pendulum, written out, from (q, p)."""
    drift = diffrax.ODETerm(lambda t, y, args: (y[1], 0 * y[1]))
    kick = diffrax.ODETerm(lambda t, y, args: (0 * y[0], -jnp.sin(y[0])))
    terms, state = diffrax.MultiTerm(drift, kick), (jnp.asarray(1.0), jnp.asarray(0.5))
    end = diffrax.diffeqsolve(terms, ide.Strang(diffrax.Euler()), 0, 1, 1, state).ys
    q = 1.0 + 0.5 / 2
    p = 0.5 - np.sin(q)
    assert largest(jnp.concatenate(end), np.array([q + p / 2, p])) < 1e-14


def test_a_flow_in_closed_form_takes_the_place_of_the_sub_solver():
    (first, second), u = matrices(2), np.asarray(initial_state())
    damped = np.exp(-1.4) * u
    for _ in range(2):
        u = np.exp(-0.7) * (u + u @ first) @ (np.eye(WIDTH) + second)
    u1 = final(tied_equation(first, second, ide.Damping(0.7)), ide.LieTrotter())
    assert largest(u1, u) < 1e-13
    alone = tied_equation(ide.Damping(0.7))
    assert largest(final(alone, ide.ParallelSplitting()), damped) < 1e-14


def test_parallel_splitting_reads_the_weights_of_its_step():
    """Each operator, of twice the rate, by Heun's method from the first to the last knot."""
    knots, u = matrices(2, layers=2), np.asarray(initial_state())
    ends = []
    for first, last in knots:
        increment = 2 * u @ first
        ends.append(u + increment / 2 + (u + increment) @ last)
    control = ide.PiecewiseLinear(tuple(Matrix(jnp.asarray(x)) for x in knots))
    solver = ide.ParallelSplitting(diffrax.Heun())
    assert largest(final(equation_of(control), solver), np.mean(ends, axis=0)) < 1e-13


LAYERED = layered_equation()


def test_special_cases():
    # A multistep scheme starts again where the field jumps.
    heun = final(LAYERED, diffrax.Heun())
    assert largest(final(LAYERED, ide.AdamsBashforth(3)), heun) < 1e-13
    sphere = ide.Equation(LAYERED.control, ide.Sphere(), LAYERED.domain)
    block = ide.solvers.Residual(diffrax.Euler(), ide.LieTrotter())
    assert largest(final(sphere, block), final(sphere, ide.Projected(ide.LieTrotter()))) < 1e-13


def test_exponential_euler_makes_the_step_of_parcae():
    """`e^{-hλ} u + h φ_1(-hλ) (κ ⊙ f + A(u))`, and exact for damping and injection alone."""
    strength, rates = np.array([0.3, -0.2, 0.8, 0.0]), np.linspace(0.2, 3.0, WIDTH)
    source = np.random.default_rng(3).normal(size=(TOKENS, WIDTH))
    (matrix,), injected = matrices(1), strength * source
    sourced = (
        ide.equation.StableDamping(rates),
        ide.equation.Injection(strength, jnp.asarray(source)),
    )
    u = start = np.asarray(initial_state())
    for _ in range(3):
        u = np.exp(-rates) * u + (1 - np.exp(-rates)) / rates * (injected + u @ matrix)
    equation = tied_equation(*sourced, matrix, intervals=3)
    assert largest(final(equation, ide.ExponentialEuler()), u) < 1e-13
    decay = np.exp(-3 * rates)
    u = decay * start + (1 - decay) / rates * injected
    assert largest(final(tied_equation(*sourced, intervals=3), ide.ETDAB2()), u) < 1e-13


def test_the_linear_part_has_the_weights_of_the_middle_of_a_step():
    """L is -0.8, and N the rate at the beginning without it, (-0.2 + 0.8) u."""
    rates = np.outer([0.2, 1.4], np.ones(WIDTH))
    equation = equation_of(ide.PiecewiseLinear((ide.Damping(rates),)))
    factor = np.exp(-0.8) + (1 - np.exp(-0.8)) / 0.8 * 0.6
    u1 = final(equation, ide.ExponentialEuler())
    assert largest(u1, factor * initial_state()) < 1e-14


@pytest.mark.parametrize("scheme", [ide.AdamsBashforth(3), ide.ETDAB2()])
def test_steps_of_other_lengths_keep_the_order(scheme):
    """By diffrax, with every second step twice as long."""
    (matrix,) = matrices(1)
    equation, u0 = tied_equation(matrix, ide.Damping(0.7)), initial_state()
    exact = u0 @ scipy.linalg.expm(2 * (matrix - 0.7 * np.eye(WIDTH)))

    def error(num_steps):
        ends = np.cumsum(np.tile([1.0, 2.0], num_steps // 2))
        steps = diffrax.StepTo(np.append(0, 2 * ends / ends[-1]))
        options = dict(stepsize_controller=steps)
        return largest(
            diffrax.diffeqsolve(equation.terms, scheme, 0, 2, None, u0, **options).ys, exact
        )

    order = observed_order(error, (32, 64))
    assert order == pytest.approx(scheme.order(equation.terms), abs=0.15)


def test_phi_functions_and_their_derivatives_in_single_precision():
    size = np.logspace(-9, 0.9, 60)
    z, k = np.concatenate([-size, [0.0], size]).astype(np.float32), np.arange(60)
    powers = z.astype(float)[:, None] ** k
    for n in (1, 3):
        factor = 1 / scipy.special.factorial(k + n)
        slopes = jax.jit(jax.vmap(jax.value_and_grad(ft.partial(phi, n))))
        value, slope = map(np.asarray, slopes(z))
        assert value.dtype == slope.dtype == np.float32
        assert np.max(np.abs(value / (powers @ factor) - 1)) < 2e-6
        assert np.max(np.abs(slope / (powers[:, :-1] @ (k * factor)[1:]) - 1)) < 5e-6


def test_a_scheme_that_starts_from_the_state_alone_refuses_a_velocity():
    model = examples.language_model(velocity=True, solver=ide.solvers.Residual(ide.RK4()))
    with pytest.raises(ide.InputError, match=r"Residual .* InitialVelocity"):
        model.solve(np.zeros(3, int))
