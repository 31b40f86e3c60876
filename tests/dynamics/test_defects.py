"""Defects of one step, against orders, commutators and the states of a solve."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, largest, make_equation, observed_order, random_state

import ide_transformer as ide
from ide_transformer import dynamics


equation_defects = eqx.filter_jit(dynamics.equation_defects)


ONE, U0 = make_equation(intervals=1), random_state(2)


def with_step(h):
    """One layer whose step is of size h. Being an array, h is not compiled into the solve."""
    rate = jnp.asarray(np.full(1, h))
    control = tuple(ide.Scaled(x, rate) for x in ONE.control.blocks)
    return ide.Equation(ide.PiecewiseConstant(control), ide.Free(), ONE.domain)


STEPS = (8, 16, 32)


@pytest.mark.parametrize(
    ("solver", "order"), [(ide.Strang(diffrax.Heun()), 2), (ide.LieTrotter(), 1)]
)
def test_defects_are_of_the_order_of_the_local_error(solver, order):
    """The commutator is divided by the square of the length of the interval."""
    found = {n: equation_defects(with_step(1 / n), U0, solver=solver) for n in STEPS}
    orders = {"step_doubling": order + 1, "commutator": 2, "splitting": 2}
    for name in [*orders][: 3 if order == 1 else 1]:
        observed = observed_order(lambda n, name=name: getattr(found[n], name)[0], STEPS)
        assert abs(observed - orders[name]) < 0.15, name
    if order == 1:
        halved = ide.Equation(ONE.control.resample(8), ide.Free(), ONE.domain)
        there = equation_defects(halved, U0, solver=solver).commutator[0]
        assert abs(there - 64 * found[8].commutator[0]) < 1e-11


def test_a_scheme_that_does_not_split_has_no_splitting_errors():
    """Nor has one around a splitting, whose sub-solver is not its own."""
    found = equation_defects(ONE, U0, solver=diffrax.HalfSolver(ide.LieTrotter()))
    assert jnp.isnan(found.splitting).all() and jnp.isnan(found.commutator).all()
    assert jnp.isfinite(found.step_doubling).all()


class Mixing(ide.AbstractOperator):
    matrix: jax.Array

    def __call__(self, u, domain):
        return u @ self.matrix


def test_the_commutator_is_that_of_linear_operators():
    a, b = 0.3 * np.random.default_rng(5).normal(size=(2, 3, WIDTH, WIDTH))
    u0 = np.asarray(U0)
    for second in (b, a @ a):
        control = ide.PiecewiseConstant((Mixing(jnp.asarray(a)), Mixing(jnp.asarray(second))))
        equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(6))
        found = equation_defects(equation, U0, solver=ide.LieTrotter())
        exact = np.linalg.norm(u0 @ (a[0] @ second[0] - second[0] @ a[0])) / np.linalg.norm(u0)
        assert abs(found.commutator[0] - exact) < 1e-12
        assert (exact < 1e-12) == (second is not b)


LAYERS = diffrax.SaveAt(ts=np.arange(4.0))


@eqx.filter_jit
def layer_states(equation, solver, steps=1):
    return ide.solve(equation, U0, solver=solver, steps_per_interval=steps, saveat=LAYERS).us


def test_increments_are_those_of_the_layer_states():
    """And the block influence is the mean over tokens of one minus the cosine."""
    found = equation_defects(make_equation(), U0, solver=ide.LieTrotter())
    us = np.asarray(layer_states(make_equation(), ide.LieTrotter()))
    steps, sizes = np.diff(us, axis=0), np.sqrt(np.mean(us[:-1] ** 2, axis=(1, 2, 3)))
    assert largest(found.state, sizes) < 1e-12
    assert largest(found.increment, np.sqrt(np.mean(steps**2, axis=(1, 2, 3))) / sizes) < 1e-12
    first, second = steps[0].ravel(), steps[1].ravel()
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert np.isnan(found.alignment[0]) and abs(found.alignment[1] - cosine) < 1e-12
    norms = np.linalg.norm(us, axis=-1)
    cosines = np.sum(us[0] * us[1], axis=-1) / (norms[0] * norms[1])
    assert abs(found.turn[0] - np.mean(1 - cosines)) < 1e-12


@pytest.mark.heavy
def test_of_several_steps_in_an_interval_they_are_those_of_a_solve():
    equation, plain = make_equation(), ide.LieTrotter()
    opposite = ide.Equation(
        ide.PiecewiseConstant(equation.control.blocks[::-1]), ide.Free(), equation.domain
    )

    def size(x):
        return np.sqrt(np.mean(np.square(x), axis=(-1, -2, -3)))

    us = np.asarray(layer_states(equation, plain, 3))
    others = {
        "step_doubling": (layer_states(equation, plain, 6), 1),
        "splitting": (layer_states(equation, ide.Strang(diffrax.Euler()), 3), 1),
        "commutator": (layer_states(opposite, plain, 3), 3),
    }
    found = equation_defects(equation, U0, solver=plain, steps_per_interval=3)
    assert largest(found.increment, size(us[1:] - us[:-1]) / size(us[:-1])) < 1e-12
    for name, (other, factor) in others.items():
        expected = factor * size(np.asarray(other)[1] - us[1]) / size(us[0])
        assert abs(getattr(found, name)[0] - expected) < 1e-12


@pytest.mark.heavy
@pytest.mark.thorough
def test_a_scheme_that_carries_something_across_intervals_is_refused():
    """On layers it starts again with each."""
    solver = ide.AdamsBashforth(2)
    with pytest.raises(ide.InputError, match="uses earlier steps"):
        equation_defects(make_equation(ide.PiecewiseLinear), U0, solver=solver)
    found = equation_defects(make_equation(), U0, solver=solver, steps_per_interval=2)
    us = np.asarray(layer_states(make_equation(), solver, 2))
    assert largest(found.state, np.sqrt(np.mean(us[:-1] ** 2, axis=(1, 2, 3)))) < 1e-12


def test_padded_tokens_do_not_enter():
    equation = make_equation()
    padded = ide.Equation(
        equation.control, ide.Free(), equation.domain.padded(jnp.arange(6) < 4)
    )
    short = ide.Equation(equation.control, ide.Free(), ide.TokenDomain.uniform(4))
    here = equation_defects(padded, U0, solver=ide.LieTrotter())
    there = equation_defects(short, U0[:, :4], solver=ide.LieTrotter())
    for x, y in zip(here, there, strict=True):
        assert largest(x[1:], y[1:]) < 1e-12
