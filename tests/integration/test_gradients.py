"""Gradients of the march against by-hand solves, unrolled loops and finite differences."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, fast_first, largest, make_block, make_equation, random_state

import ide_transformer as ide


U0 = random_state()
TARGET = random_state(seed=11)
SOLVERS = {
    "residual": ide.Residual(diffrax.Heun()),
    "lie_trotter": ide.LieTrotter(),
    "strang": ide.Strang(diffrax.Heun()),
    "heun": diffrax.Heun(),
    "rk4": ide.RK4(),
}


def loss(u1):
    return jnp.mean((u1 - TARGET) ** 2)


def flat_gradient(function, equation):
    """The gradient with respect to all weights and the initial state, as one vector."""
    gradient_of = eqx.filter_jit(eqx.filter_grad(lambda pair: loss(function(*pair))))
    gradient = gradient_of((equation, U0))
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])


def marched(solver, **options):
    return lambda equation, u0: (
        ide.solve(equation, u0, solver=solver, throw=False, steps_per_interval=2, **options).u1
    )


def unrolled(solver):
    """A Python loop over layers and steps, without scan, checkpointing or diffrax's loop."""

    def solve(equation, u):
        for layer in range(equation.control.num_intervals):
            interval = jax.tree.map(lambda x, i=layer: x[i], equation.intervals())
            terms = equation.interval_terms(layer, interval)
            for t0, t1 in ((layer, layer + 0.5), (layer + 0.5, layer + 1.0)):
                state = solver.init(terms, t0, t1, u, None)
                u = solver.step(terms, t0, t1, u, None, state, True)[0]
        return u

    return solve


@pytest.mark.heavy
@pytest.mark.parametrize("name", fast_first(0, SOLVERS, heavy=1))
def test_march_equals_unrolled(name):
    solver = SOLVERS[name]
    equation = make_equation(ide.PiecewiseLinear, intervals=2)
    gradient = flat_gradient(marched(solver), equation)
    assert largest(gradient, flat_gradient(unrolled(solver), equation)) < 1e-10


@pytest.mark.parametrize(
    ("control", "constraint", "solver"),
    fast_first(
        1,
        [
            (
                ide.PiecewiseConstant,
                ide.Sphere(),
                ide.LieTrotter(ide.Projected(diffrax.Euler())),
            ),
            (ide.Tied, ide.Free(), ide.Strang(diffrax.Heun())),
            (ide.PiecewiseConstant, ide.Sphere(), ide.Strang(ide.Projected(diffrax.Heun()))),
        ],
        heavy=1,
    ),
    ids=["layers on the sphere", "tied", "strang on the sphere"],
)
def test_layered_march_equals_unrolled(control, constraint, solver):
    equation = make_equation(control, intervals=2, constraint=constraint)
    gradient = flat_gradient(marched(solver), equation)
    assert largest(gradient, flat_gradient(unrolled(solver), equation)) < 1e-10


@pytest.mark.heavy
def test_gradient_modes_agree():
    equation = make_equation()
    reference = flat_gradient(marched(ide.LieTrotter(), gradient=ide.Direct()), equation)
    for gradient in (ide.Recompute(), ide.Recompute(policy=None)):
        found = flat_gradient(marched(ide.LieTrotter(), gradient=gradient), equation)
        assert largest(found, reference) < 1e-12


@pytest.mark.parametrize(
    "solver",
    fast_first(
        1,
        [
            ide.AdamsBashforth(3),
            ide.RK4(),
            ide.ImplicitMidpoint(),
            ide.LieTrotter(),
            ide.Residual(ide.RK4()),
            ide.Leapfrog(),
            ide.Nesterov(),
            ide.Yoshida4(),
            diffrax.Kvaerno3(),
        ],
        heavy=1,
    ),
    ids=lambda solver: type(solver).__name__,
)
def test_march_equals_finite_differences(solver):
    equation = make_equation(intervals=2)
    solve = marched(solver)
    gradient = flat_gradient(solve, equation)
    arrays, static = eqx.partition((equation, U0), eqx.is_inexact_array)
    flat, unflatten = jax.flatten_util.ravel_pytree(arrays)
    direction = jax.random.normal(jax.random.key(4), flat.shape)

    @jax.jit
    def along(x):
        return loss(solve(*eqx.combine(unflatten(x), static)))

    h = 1e-5
    difference = (along(flat + h * direction) - along(flat - h * direction)) / (2 * h)
    assert abs(float(gradient @ direction - difference)) < 1e-7 * abs(float(difference))


@ft.cache
def fine_gradient():
    return flat_gradient(
        lambda e, u: ide.solve(e, u, solver=ide.RK4(), steps_per_interval=48, throw=False).u1,
        make_equation(intervals=2),
    )


@pytest.mark.parametrize(
    "gradient",
    fast_first(
        0,
        [ide.Direct(), ide.Recompute(), diffrax.RecursiveCheckpointAdjoint(checkpoints=8)],
        heavy=1,
    ),
    ids=repr,
)
def test_adaptive_gradients(gradient):
    """With tight tolerances all agree with the gradient of a fine march."""
    fine = fine_gradient()
    adaptive = flat_gradient(
        lambda e, u: (
            ide.solve(
                e,
                u,
                solver=diffrax.Dopri5(),
                stepsize_controller=diffrax.PIDController(1e-9, 1e-9),
                gradient=gradient,
                max_steps=64,
                throw=False,
            ).u1
        ),
        make_equation(intervals=2),
    )
    assert largest(adaptive, fine) < 1e-6 * float(jnp.abs(fine).max())


def test_an_adjoint_of_diffrax_is_a_gradient_mode():
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=8)
    mode = ide.Discretization(ide.RK4(), gradient=adjoint).gradient
    assert isinstance(mode, ide.AbstractGradient)
    assert mode.adjoint() is adjoint
    assert ide.Discretization(ide.RK4(), gradient=mode).gradient is mode


@pytest.mark.parametrize(
    "solver", fast_first(0, [ide.ImplicitMidpoint(), ide.ImplicitEuler()], heavy=1)
)
def test_implicit_gradients_equal_those_of_newton_with_a_matrix(solver):
    """The same steps with a dense Jacobian, differentiated through its iterations."""
    equation = make_equation(intervals=2)
    middle = isinstance(solver, ide.ImplicitMidpoint)

    def dense(equation, u):
        for layer in range(2):
            terms = equation.terms_of(layer)

            def step(u, t0, terms=terms):
                t = t0 + (0.25 if middle else 0.5)

                def residual(x):
                    stage = 0.5 * (u.ravel() + x) if middle else x
                    field = terms.vf_prod(
                        t, stage.reshape(u.shape), None, terms.contr(0.0, 0.5)
                    )
                    return x - u.ravel() - field.ravel()

                def newton(x, _):
                    return x - jnp.linalg.solve(jax.jacfwd(residual)(x), residual(x)), None

                x, _ = jax.lax.scan(newton, u.ravel(), length=7)
                return x.reshape(u.shape), None

            u, _ = jax.lax.scan(step, u, layer + jnp.array([0.0, 0.5]))
        return u

    u1 = eqx.filter_jit(dense)(equation, U0)
    assert largest(marched(solver)(equation, U0), u1) < 1e-10
    expected = flat_gradient(dense, equation)
    bound = 1e-9 * float(jnp.abs(expected).max())
    assert largest(flat_gradient(marched(solver), equation), expected) < bound


@pytest.mark.heavy
def test_gradient_of_a_steady_state():
    """Against finite differences, and it does not depend on where the search starts."""
    operators = (*make_block(jax.random.key(0), std=0.05), ide.Relaxation(4.0))
    u0 = random_state()

    @jax.jit
    def solve(scale):
        scaled = jax.tree.map(lambda x: scale * x if eqx.is_array(x) else x, operators)
        control = ide.Sourced(ide.Tied(scaled, 1), u0)
        equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))
        solver = ide.SteadyState(diffrax.Euler())
        return ide.solve(equation, u0, solver=solver, throw=False)

    u1 = solve(1.0).u1
    rate = ide.Equation(
        ide.Sourced(ide.Tied(operators, 1), u0), ide.Free(), ide.TokenDomain.uniform(TOKENS)
    ).vector_field(0.0, u1)
    assert largest(rate, 0) < 1e-10
    gradient = jax.grad(lambda scale: loss(solve(scale).u1))(1.0)
    h = 1e-4
    difference = (loss(solve(1 + h).u1) - loss(solve(1 - h).u1)) / (2 * h)
    assert abs(float(gradient - difference)) < 1e-6 * abs(float(difference))
