"""Gradients of a solve: modes against each other, loops written out, finite differences and a
Newton method with a matrix."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, WIDTH, fast_first, largest, make_block, make_equation, random_state

import ide_transformer as ide


U0 = random_state()
TARGET = random_state(seed=11)
REVERSIBLE = ide.AlgebraicallyReversible


def loss(u1):
    return jnp.mean((u1 - TARGET.astype(u1.dtype)) ** 2)


def flat_gradient(function, equation, u0=U0):
    """The gradient with respect to all weights and the initial state, as one vector."""
    gradient_of = eqx.filter_jit(eqx.filter_grad(lambda pair: loss(function(*pair))))
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient_of((equation, u0)))])


def marched(solver, gradient=ide.Recompute(), steps=2, **options):
    options |= dict(solver=solver, gradient=gradient, steps_per_interval=steps)
    return lambda equation, u0: ide.solve(equation, u0, throw=False, **options).u1


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


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
            (ide.PiecewiseLinear, None, ide.Residual(diffrax.Heun())),
        ],
    ),
    ids=["layers on the sphere", "smooth"],
)
def test_march_equals_unrolled(control, constraint, solver):
    equation = make_equation(control, intervals=2, constraint=constraint)
    gradient = flat_gradient(marched(solver), equation)
    assert largest(gradient, flat_gradient(unrolled(solver), equation)) < 1e-10


@pytest.mark.parametrize(
    "solver",
    fast_first(1, [ide.AdamsBashforth(3), ide.Leapfrog(), diffrax.Kvaerno3()], heavy=2),
    ids=lambda solver: type(solver).__name__,
)
def test_march_equals_finite_differences(solver):
    equation = make_equation(intervals=2)
    solve = marched(solver)
    gradient = flat_gradient(solve, equation)
    arrays, static = eqx.partition((equation, U0), eqx.is_inexact_array)
    flat, unflatten = jax.flatten_util.ravel_pytree(arrays)
    direction = np.random.default_rng(4).normal(size=flat.shape)

    @jax.jit
    def along(x):
        return loss(solve(*eqx.combine(unflatten(x), static)))

    h = 1e-5
    difference = (along(flat + h * direction) - along(flat - h * direction)) / (2 * h)
    assert abs(float(gradient @ direction - difference)) < 1e-7 * abs(float(difference))


# On the way back a projection divides by the gain, here layer after layer.
NEAR_ONE, BIAS = jnp.linspace(0.95, 1.05, WIDTH), jnp.linspace(-0.1, 0.1, WIDTH)
LIE = REVERSIBLE(ide.LieTrotter())


def post_norm(constraint):
    return ft.partial(make_equation, constraint=constraint, normalization=ide.Free(), std=0.1)


SMOOTH = ft.partial(make_equation, ide.PiecewiseLinear, std=0.02)
# Each mode against `Direct`: the equation, its intervals, steps in each, and the scheme.
MODES = {
    "recompute all": (make_equation, 3, 2, ide.LieTrotter(), ide.Recompute(policy=None)),
    "recursive": (make_equation, 13, 1, ide.LieTrotter(), ide.Recursive(3)),
    "recursive, no rest": (make_equation, 8, 1, ide.LieTrotter(), ide.Recursive(9)),
    "reversible": (make_equation, 48, 1, LIE, ide.Reversible()),
    "reversible, post-norm": (
        *(post_norm(ide.LayerNorm(NEAR_ONE, BIAS)), 48, 1),
        *(ide.projected(LIE), ide.Reversible()),
    ),
    "reversible, on the sphere": (
        *(post_norm(ide.RMSSphere(NEAR_ONE)), 24, 1),
        *(ide.projected(REVERSIBLE(ide.Strang(diffrax.Heun()))), ide.Reversible()),
    ),
    "leapfrog of blocks": (SMOOTH, 24, 2, ide.Residual(ide.Leapfrog()), ide.Reversible()),
    "tied": (
        *(ft.partial(make_equation, ide.Tied), 24, 1),
        *(REVERSIBLE(diffrax.Heun()), ide.Reversible()),
    ),
}
FAST = ["recursive", "reversible"]


@pytest.mark.parametrize("name", fast_first(2, dict.fromkeys([*FAST, *MODES])))
def test_modes_agree(name):
    make, intervals, steps, solver, mode = MODES[name]
    equation = make(intervals=intervals)
    direct = flat_gradient(marched(solver, ide.Direct(), steps), equation)
    found = flat_gradient(marched(solver, mode, steps), equation)
    assert relative(found, direct) < (1e-10 if intervals * steps > 13 else 1e-12)


@pytest.mark.heavy
def test_modes_agree_in_float32():
    equation = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x,
        make_equation(intervals=48),
    )
    direct, reversible = (
        flat_gradient(marched(LIE, mode, 1), equation, U0.astype(jnp.float32))
        for mode in (ide.Direct(), ide.Reversible())
    )
    assert direct.dtype == jnp.float32 and relative(reversible, direct) < 1e-4


@pytest.mark.heavy
def test_adaptive_gradients():
    """With tight tolerances all agree with the gradient of a fine march."""
    equation = make_equation(intervals=2)
    fine = flat_gradient(marched(ide.RK4(), steps=48), equation)
    options = dict(stepsize_controller=diffrax.PIDController(1e-9, 1e-9), max_steps=64)
    for mode in (ide.Direct(), diffrax.RecursiveCheckpointAdjoint(checkpoints=8)):
        solve = marched(diffrax.Dopri5(), mode, steps=1, **options)
        assert largest(flat_gradient(solve, equation), fine) < 1e-6 * np.abs(fine).max()


def test_an_adjoint_of_diffrax_is_a_gradient_mode():
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=8)
    mode = ide.Discretization(ide.RK4(), gradient=adjoint).gradient
    assert isinstance(mode, ide.AbstractGradient)
    assert mode.adjoint() is adjoint
    assert ide.Discretization(ide.RK4(), gradient=mode).gradient is mode


@pytest.mark.heavy
def test_implicit_gradients_equal_those_of_newton_with_a_matrix():
    """The same steps with a dense Jacobian, differentiated through its iterations."""
    equation, solver = make_equation(intervals=2), ide.ImplicitMidpoint()

    def dense(equation, u):
        for layer in range(2):
            terms = equation.terms_of(layer)

            def step(u, t0, terms=terms):
                def residual(x):
                    stage = 0.5 * (u.ravel() + x)
                    field = terms.vf_prod(
                        t0 + 0.25, stage.reshape(u.shape), None, terms.contr(0.0, 0.5)
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
    """Against finite differences."""
    operators = (*make_block(jax.random.key(0), std=0.05), ide.Relaxation(4.0))

    def equation_of(operators):
        control = ide.Sourced(ide.Tied(operators, 1), U0)
        return ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))

    @jax.jit
    def u1(scale):
        scaled = jax.tree.map(lambda x: scale * x if eqx.is_array(x) else x, operators)
        solver = ide.SteadyState(diffrax.Euler())
        return ide.solve(equation_of(scaled), U0, solver=solver, throw=False).u1

    assert largest(equation_of(operators).vector_field(0.0, u1(1.0)), 0) < 1e-10
    gradient, h = jax.grad(lambda scale: loss(u1(scale)))(1.0), 1e-4
    difference = (loss(u1(1 + h)) - loss(u1(1 - h))) / (2 * h)
    assert abs(float(gradient - difference)) < 1e-6 * abs(float(difference))


def forward_mode(options):
    def end(u0):
        return ide.solve(make_equation(), u0, **options).u1

    return jax.jvp(end, (U0,), (jnp.ones_like(U0),))[1], jax.jacrev(lambda x: end(x).sum())(U0)


ADAPTIVE = dict(
    solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)
)


@pytest.mark.parametrize(
    "options",
    [
        dict(solver=REVERSIBLE(), gradient=ide.Reversible()),
        dict(solver=ide.ImplicitMidpoint()),
        ADAPTIVE,
    ],
)
def test_forward_mode_where_there_is_none(options):
    with pytest.raises(ide.InputError, match=r"forward mode.*gradient=Direct\(\)"):
        forward_mode(options)


@pytest.mark.heavy
@pytest.mark.parametrize("options", [dict(solver=REVERSIBLE()), ADAPTIVE])
def test_forward_mode_where_the_error_says_it_works(options):
    tangents, cotangents = forward_mode({**options, "gradient": ide.Direct()})
    assert abs(float(tangents.sum() - cotangents.sum())) < 1e-10
