"""Gradients of a solve: modes against each other, loops written out, and finite
differences."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest, make_equation, random_state
from solvers.linear_problem import WIDTH, Mixing, initial_state, layered_equation, matrices

import ide_transformer as ide


U0 = initial_state()
PAIR = ide.AlgebraicallyReversible(ide.LieTrotter())


def mixing(layers, **options):
    return layered_equation(layers=layers, kind=Mixing, **options)


def loss(u1):
    target = np.random.default_rng(11).normal(size=u1.shape).astype(u1.dtype)
    return jnp.mean((u1 - target) ** 2)


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


def test_march_equals_unrolled():
    equation = mixing(2, constraint=ide.Sphere())
    solver = ide.LieTrotter(ide.Projected(diffrax.Euler()))
    gradient = flat_gradient(marched(solver), equation)
    assert largest(gradient, flat_gradient(unrolled(solver), equation)) < 1e-10


def post_norm():
    """On the way back a projection divides by the gain, here layer after layer."""
    gain, bias = jnp.linspace(0.95, 1.05, 16), jnp.linspace(-0.1, 0.1, 16)
    options = dict(constraint=ide.LayerNorm(gain, bias), normalization=ide.Free())
    return make_equation(intervals=48, std=0.1, **options)


def single():
    equation = make_equation(intervals=48)
    return jax.tree.map(lambda x: x.astype(jnp.float32), equation)


# Each mode against `Direct`: the equation, steps in each interval, the scheme, and how near.
HEUN_PAIR = ide.AlgebraicallyReversible(diffrax.Heun())
MODES = {
    "recursive": (lambda: mixing(13), 1, ide.LieTrotter(), ide.Recursive(3), 1e-13),
    "reversible": (lambda: mixing(48, size=0.05), 1, PAIR, ide.Reversible(), 1e-10),
    "post-norm": (post_norm, 1, ide.projected(PAIR), ide.Reversible(), 1e-10),
    "tied": (lambda: make_equation(ide.Tied, 12), 4, HEUN_PAIR, ide.Reversible(), 1e-10),
    "recursive, no rest": (
        *(lambda: make_equation(intervals=8), 1, ide.LieTrotter()),
        *(ide.Recursive(9, policy=None), 1e-13),
    ),
    "single precision": (single, 1, PAIR, ide.Reversible(), 1e-4),
}


@pytest.mark.parametrize("name", fast_first(1, MODES, heavy=2))
def test_modes_agree(name):
    make, steps, solver, mode, bound = MODES[name]
    equation = make()
    u0 = U0 if equation.domain.num_tokens == len(U0) else random_state()
    u0 = u0.astype(jax.tree.leaves(equation)[0].dtype)
    direct, found = (
        flat_gradient(marched(solver, x, steps), equation, u0) for x in (ide.Direct(), mode)
    )
    assert direct.dtype == u0.dtype and relative(found, direct) < bound


def value_and_gradient(equation, u0, mode, solver=PAIR, **options):
    """The states asked for, and the gradient of a function of them."""

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def both(u0):
        us = ide.solve(equation, u0, solver=solver, gradient=mode, **options).us
        return jnp.sum(jnp.cos(us - 1.0)), us

    (_, us), gradient = both(u0)
    return us, gradient


def test_states_at_the_knots_from_zero_and_their_gradient():
    equation, zero = mixing(4), jnp.zeros_like(U0)
    saveat = diffrax.SaveAt(ts=equation.knots)
    found, expected = (
        value_and_gradient(equation, zero, mode, saveat=saveat, throw=False)
        for mode in (ide.Reversible(), ide.Direct())
    )
    assert largest(found[0], expected[0]) < 1e-13
    assert largest(found[1], expected[1]) < 1e-12
    assert 0 < ide.rebuilding_error(equation, zero, solver=PAIR)[0] < 1e-12


def test_rounding_grows_on_the_way_back_as_the_coupling_says():
    equation = mixing(48, size=0.05)
    pairs = (ide.AlgebraicallyReversible(ide.LieTrotter(), coupling=c) for c in (0.99, 0.7))
    good, bad = (np.asarray(ide.rebuilding_error(equation, U0, solver=x)) for x in pairs)
    assert good.shape == (48,) and good[0] < 1e-12
    # Of the 48 steps each multiplies by 1/0.7, which makes 3e7.
    assert 1e3 * good[0] < bad[0] and bad[-1] < 1e-14


@pytest.mark.heavy
def test_a_gradient_spoilt_by_rounding_is_an_error():
    equation, mode = mixing(48, size=0.05), ide.Reversible()
    solver = ide.AlgebraicallyReversible(ide.LieTrotter(), coupling=0.3)
    _, gradient = value_and_gradient(equation, U0, mode, solver, throw=False)
    assert np.isnan(gradient).all()
    with pytest.raises(Exception, match="rebuilt initial state differs"):
        jax.block_until_ready(value_and_gradient(equation, U0, mode, solver))


@pytest.mark.heavy
def test_adaptive_gradients():
    """With tight tolerances all agree with the gradient of a fine march."""
    equation = mixing(2)
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
def test_gradient_of_a_steady_state():
    """Against finite differences."""
    operators = Mixing(jnp.asarray(matrices(1)[0])), ide.Relaxation(jnp.full(WIDTH, 4.0))

    def equation_of(operators):
        control = ide.Sourced(ide.Tied(operators, 1), U0)
        return ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(len(U0)))

    @jax.jit
    def u1(scale):
        scaled = jax.tree.map(lambda x: scale * x if eqx.is_array(x) else x, operators)
        solver = ide.SteadyState(diffrax.Euler())
        return ide.solve(equation_of(scaled), U0, solver=solver, throw=False).u1

    assert largest(equation_of(operators).vector_field(0.0, u1(1.0)), 0) < 1e-10
    gradient, h = jax.grad(lambda scale: loss(u1(scale)))(1.0), 1e-4
    difference = (loss(u1(1 + h)) - loss(u1(1 - h))) / (2 * h)
    assert abs(float(gradient - difference)) < 1e-6 * abs(float(difference))


ADAPTIVE = dict(
    solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3)
)


@pytest.mark.parametrize(
    ("options", "works"),
    [
        (dict(solver=PAIR, gradient=ide.Reversible()), False),
        (dict(solver=ide.ImplicitMidpoint()), False),
        (ADAPTIVE, False),
        pytest.param(dict(ADAPTIVE, gradient=ide.Direct()), True, marks=pytest.mark.heavy),
    ],
)
def test_forward_mode_works_where_the_error_says_it_does(options, works):
    def end(u0):
        return ide.solve(mixing(3), u0, **options).u1

    def pushed():
        return jax.jvp(end, (U0,), (jnp.ones_like(U0),))[1].sum()

    if works:
        pulled = jax.jacrev(lambda x: end(x).sum())(U0).sum()
        assert abs(float(pushed() - pulled)) < 1e-10
    else:
        with pytest.raises(ide.InputError, match=r"forward mode.*gradient=Direct\(\)"):
            pushed()
