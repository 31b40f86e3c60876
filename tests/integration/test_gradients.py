"""Gradients of a solve, modes against each other and by forward mode; traced programs with
marked places, on all kinds of operations that hold programs."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ide_transformer as ide
from ide_transformer.integration.marked_programs import MarkInLoop, mark, run_marked
from tests.helpers import fast_first, largest, make_equation, random_state
from tests.solvers.linear_problem import Mixing, initial_state, layered_equation


U0, PAIR = initial_state(), ide.AlgebraicallyReversible(ide.LieTrotter())


def mixing(layers, **options):
    return layered_equation(layers=layers, kind=Mixing, **options)


def flat_gradient(equation, u0=U0, **options):
    """The gradient with respect to all weights and the initial state, as one vector."""

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(pair):
        u1 = ide.solve(*pair, throw=False, **options).u1
        target = np.random.default_rng(11).normal(size=u1.shape).astype(u1.dtype)
        return jnp.mean((u1 - target) ** 2)

    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient((equation, u0)))])


def post_norm():
    """On the way back a projection divides by the gain, here layer after layer."""
    gain, bias = jnp.linspace(0.95, 1.05, 16), jnp.linspace(-0.1, 0.1, 16)
    options = dict(constraint=ide.LayerNorm(gain, bias), normalization=ide.Free())
    return make_equation(intervals=48, std=0.1, **options), random_state()


# The equation, the scheme, and how near.
REVERSIBLE = {
    "mixing": (lambda: (mixing(48, size=0.05), U0), PAIR, 1e-10),
    "post-norm": (post_norm, ide.projected(PAIR), 1e-10),
}


@pytest.mark.parametrize("name", fast_first(1, REVERSIBLE))
def test_reversible_gradients_are_the_direct_ones(name):
    make, solver, bound = REVERSIBLE[name]
    modes = ide.Direct(), ide.Reversible()
    direct, reversible = (flat_gradient(*make(), solver=solver, gradient=x) for x in modes)
    assert np.linalg.norm(reversible - direct) < bound * np.linalg.norm(direct)


def value_and_gradient(equation, u0, mode, solver=PAIR, **options):
    """The states at the knots, and the gradient of a function of them."""
    options |= dict(solver=solver, gradient=mode, saveat=diffrax.SaveAt(ts=equation.knots))

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def states_and_gradient(u0):
        us = ide.solve(equation, u0, **options).us
        return jnp.sum(jnp.cos(us - 1.0)), us

    (_, us), gradient = states_and_gradient(u0)
    return us, gradient


def test_states_at_the_knots_from_zero_and_their_gradient():
    equation, zero = mixing(4), jnp.zeros_like(U0)
    modes = ide.Reversible(), ide.Direct()
    results = [value_and_gradient(equation, zero, mode, throw=False) for mode in modes]
    states, gradients = zip(*results, strict=True)
    assert largest(*states) < 1e-13 and largest(*gradients) < 1e-12


@pytest.mark.heavy
def test_a_gradient_spoilt_by_rounding_is_an_error():
    solver = ide.AlgebraicallyReversible(ide.LieTrotter(), coupling=0.3)
    spoilt = mixing(48, size=0.05), U0, ide.Reversible(), solver
    assert np.isnan(value_and_gradient(*spoilt, throw=False)[1]).all()
    with pytest.raises(Exception, match="initial state"):
        jax.block_until_ready(value_and_gradient(*spoilt))


def adaptive(solver, tolerance):
    return dict(solver=solver, stepsize_controller=diffrax.PIDController(tolerance, tolerance))


@pytest.mark.heavy
def test_adaptive_gradients():
    """With tight tolerances all agree with the gradient of a fine march."""
    equation, options = mixing(2), adaptive(diffrax.Dopri5(), 1e-9)
    fine = flat_gradient(equation, solver=ide.RK4(), steps_per_interval=48)
    for mode in (ide.Direct(), ide.Recompute()):
        gradient = flat_gradient(equation, gradient=mode, max_steps=64, **options)
        assert largest(gradient, fine) < 1e-6 * np.abs(fine).max()


@pytest.mark.heavy
def test_forward_mode_of_adaptive_steps():
    def end(u0):
        options = adaptive(diffrax.Tsit5(), 1e-3)
        return ide.solve(mixing(3), u0, gradient=ide.Direct(), throw=False, **options).u1.sum()

    pushed = jax.jit(lambda u: jax.jvp(end, (u,), (jnp.ones_like(u),))[1])(U0)
    assert abs(float(pushed - jax.jit(jax.grad(end))(U0).sum())) < 1e-10


def program(marked):
    """A program of one argument with four marks: plain, in a compiled part, and one in each
    branch of a choice; loops, and `relu`, which has a derivative of its own, between them."""

    def run(x, index):
        (x,) = marked([x])
        x = x**2 + jax.nn.relu(x)
        x, sums = lax.scan(lambda c, _: (0.5 * c + 1, jnp.sum(c)), x, None, length=3)
        x = jax.jit(lambda x: marked([jnp.sin(x)])[0] + 1)(x)
        x = lax.cond(
            index > 0,
            lambda x: 2 * marked([x + 1, x])[1],
            lambda x: jax.checkpoint(jnp.cos)(marked([x[::-1]])[0]),
            x,
        )
        x = lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x + 1, x)
        return {"state": x, "sums": sums}

    return run


X = np.array([0.3, -1.2, 0.7])


def marked(arrays):
    return mark(arrays, axis=0, size=3)


def test_marks_in_a_loop_are_refused():
    loop = lambda x: lax.fori_loop(0, 2, lambda _, x: marked([x])[0], x)  # noqa: E731
    with pytest.raises(MarkInLoop):
        run_marked(loop, lambda _, arrays, *__: arrays, X)


def test_a_program_is_run_with_its_marks_filled():
    """A fill that gives arrays times their number: the program written without marks, in
    which each place multiplies by its own."""

    def fill(place, arrays, axis, size):
        assert (axis, size) == (0, 3)
        return [(place + 2) * x for x in arrays]

    for index, branch in ((1, 3), (0, 2)):
        numbers, entered_plain = iter([0, 1, branch]), []

        def plain(arrays, numbers=numbers, entered_plain=entered_plain):
            entered_plain.append(arrays)
            return fill(next(numbers), arrays, 0, 3)

        with jax.disable_jit():
            expected = program(plain)(jnp.asarray(X), index)
        outputs, entered = jax.jit(ft.partial(run_marked, program(marked), fill))(X, index)
        assert [len(arrays) for arrays in entered] == [1, 1, 1, 2]
        in_order = entered[0], entered[1], entered[branch]
        sides = jax.tree.leaves((outputs, in_order)), jax.tree.leaves((expected, entered_plain))
        for x, y in zip(*sides, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)
        # The branch that is not taken gives zeros.
        np.testing.assert_array_equal(np.array(entered[5 - branch]), 0)
