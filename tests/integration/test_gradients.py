"""Gradients of a solve, modes against each other and by forward mode; traced programs with
marked places."""

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


def flat_gradient(equation, u0=U0, throw=False, **options):
    """The gradient with respect to all weights and the initial state, as one vector."""

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(pair):
        us = ide.solve(*pair, throw=throw, **options).us
        target = np.random.default_rng(11).normal(size=us.shape).astype(us.dtype)
        return jnp.mean((us - target) ** 2)

    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient((equation, u0)))])


def post_norm():
    """On the way back a projection divides by the gain, here layer after layer."""
    gain, bias = jnp.linspace(0.95, 1.05, 16), jnp.linspace(-0.1, 0.1, 16)
    options = dict(constraint=ide.LayerNorm(gain, bias), normalization=ide.Free())
    return make_equation(intervals=48, std=0.1, **options), random_state()


REVERSIBLE = {
    "deep": (lambda: (mixing(48, size=0.05), U0), dict(solver=PAIR)),
    "from zero, states at the knots": (
        lambda: (mixing(4), 0 * U0),
        dict(solver=PAIR, saveat=diffrax.SaveAt(ts=np.arange(5.0))),
    ),
    "post-norm": (post_norm, dict(solver=ide.projected(PAIR))),
}


@pytest.mark.parametrize("name", fast_first(2, REVERSIBLE))
def test_reversible_gradients_are_the_direct_ones(name):
    make, options = REVERSIBLE[name]
    modes = ide.Direct(), ide.Reversible()
    direct, reversible = (flat_gradient(*make(), gradient=x, **options) for x in modes)
    assert np.linalg.norm(reversible - direct) < 1e-10 * np.linalg.norm(direct)


@pytest.mark.heavy
def test_a_gradient_spoilt_by_rounding_is_an_error():
    solver = ide.AlgebraicallyReversible(ide.LieTrotter(), coupling=0.3)
    spoilt, options = mixing(48, size=0.05), dict(solver=solver, gradient=ide.Reversible())
    assert np.isnan(flat_gradient(spoilt, **options)[-U0.size :]).all()
    with pytest.raises(Exception, match="initial state"):
        flat_gradient(spoilt, throw=True, **options)


@pytest.mark.heavy
def test_adaptive_gradients():
    steps = diffrax.PIDController(1e-9, 1e-9)
    options = dict(solver=diffrax.Dopri5(), stepsize_controller=steps)
    equation = mixing(2)
    fine = flat_gradient(equation, solver=ide.RK4(), steps_per_interval=48)
    for mode in (ide.Direct(), ide.Recompute()):
        gradient = flat_gradient(equation, gradient=mode, max_steps=64, **options)
        assert largest(gradient, fine) < 1e-6 * np.abs(fine).max()

    def end(u0):
        return ide.solve(equation, u0, gradient=ide.Direct(), throw=False, **options).u1.sum()

    pushed = jax.jit(lambda u: jax.jvp(end, (u,), (jnp.ones_like(u),))[1])(U0)
    assert abs(float(pushed - jax.jit(jax.grad(end))(U0).sum())) < 1e-10


def marked(x):
    return mark([x], axis=0, size=3)[0]


def test_a_program_is_run_with_its_marks_filled():
    """Plain, in a compiled part, and in each branch of a choice; not in a loop."""

    def program(x, index):
        x = jnp.cumsum(marked(x))
        x = jax.jit(lambda x: marked(jnp.sin(x)) + 1)(x)
        branches = (lambda x: marked(x[::-1])), (lambda x: 2 * marked(jax.nn.relu(x)))
        return lax.cond(index > 0, *branches[::-1], x)

    def fill(place, arrays, axis, size):
        assert (axis, size) == (0, 3)
        return [(place + 2) * x for x in arrays]

    x = np.array([0.3, -1.2, 0.7])
    second = np.sin(np.cumsum(2 * x))
    entered_last = (3 * second + 1)[::-1], np.maximum(3 * second + 1, 0)
    for index, factor, other in ((0, 4, 3), (1, 2 * 5, 2)):
        outputs, entered = jax.jit(ft.partial(run_marked, program, fill))(x, index)
        np.testing.assert_allclose(outputs, factor * entered_last[index], rtol=1e-12)
        in_order = [entered[place][0] for place in (0, 1, 2 + index)]
        for array, expected in zip(in_order, (x, second, entered_last[index]), strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-12)
        # The branch that is not taken gives zeros.
        assert not np.any(entered[other])
    with pytest.raises(MarkInLoop):
        run_marked(lambda x: lax.fori_loop(0, 2, lambda _, x: marked(x), x), fill, x)
