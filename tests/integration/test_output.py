"""Which states a solution keeps, and what it does with the arguments of the field."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, make_equation, random_state

import ide_transformer as ide
from ide_transformer.integration.output import requested


EQUATION = make_equation()
U0 = random_state(2)


def test_the_states_after_steps():
    saveat = diffrax.SaveAt(t0=True, steps=True)
    solution = ide.solve(EQUATION, U0, solver=ide.RK4(), steps_per_interval=2, saveat=saveat)
    assert largest(solution.ts, np.arange(7) / 2) == 0
    assert largest(solution.us[0], U0) < 1e-14 and largest(solution.us[-1], solution.u1) < 1e-14
    single_step = eqx.filter_jit(ide.single_step)
    half = single_step(ide.RK4(), EQUATION.terms_of(0), 0.0, 0.5, U0)
    assert largest(solution.us[1], half) < 1e-14
    every_second = diffrax.SaveAt(steps=2)
    thinned = ide.solve(
        EQUATION, U0, solver=ide.RK4(), steps_per_interval=2, saveat=every_second
    )
    assert (
        largest(thinned.ts, np.arange(1, 4)) == 0
        and largest(thinned.us, solution.us[2::2]) < 1e-14
    )


@pytest.mark.parametrize(("intervals", "length"), [(1, 1.0), (3, 1.0), (7, 4 / 7)])
def test_the_last_of_many_steps_ends_at_the_end(intervals, length):
    """49 times 1/49 is not 1. Steps that end at a boundary are asked for there."""
    control = ide.Tied((ide.Damping(1.0),), intervals, length)
    equation = ide.Equation(control, ide.Free(), EQUATION.domain)
    saveat = diffrax.SaveAt(t1=True, steps=True)
    depths = requested(equation, saveat, 49, throw=True).depths
    assert len(depths) == 49 * intervals and depths[-1] == equation.horizon
    assert np.isin(equation.knots[1:], depths).all()


def test_a_function_of_the_states():
    def read(t, u, args):
        return {"mean": args * u.mean(), "depth": t}

    saveat = diffrax.SaveAt(ts=EQUATION.knots, fn=read)
    kept = ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=saveat, args=2.0).us
    plain = diffrax.SaveAt(ts=EQUATION.knots)
    states = ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=plain).us
    assert largest(kept["depth"], EQUATION.knots) == 0
    assert largest(kept["mean"], 2 * np.mean(np.asarray(states), axis=(1, 2, 3))) < 1e-15


def test_a_solution_is_evaluated_where_it_was_solved():
    dense = diffrax.SaveAt(dense=True)
    solution = ide.solve(EQUATION, U0, solver=ide.RK4(), saveat=dense)
    for t in (-0.1, 3.1, np.nan):
        with pytest.raises(ide.InputError, match=r"t=.*(in \[0, 3\]|finite)"):
            solution.evaluate(t)
    traced = jax.jit(lambda t: solution.evaluate(t))
    assert np.isnan(traced(3.1)).all() and largest(traced(3.0), solution.u1) < 1e-14


class Forced(ide.AbstractOperator):
    """`du/dt = args cos t`."""

    force: jax.Array = 0.0

    def at(self, t, args):
        return Forced(args * jnp.cos(t))

    def __call__(self, u, domain):
        return jnp.broadcast_to(self.force, u.shape)


def test_an_operator_that_asks_for_depth_and_arguments_gets_them():
    for operator in (Forced(), ide.Scaled(Forced(), 1.0)):
        control = ide.Tied((operator,), 3)
        equation = ide.Equation(control, ide.Free(), EQUATION.domain)
        solution = ide.solve(equation, U0, solver=diffrax.Dopri8(), args=jnp.array(0.5))
        assert largest(solution.u1, np.asarray(U0) + 0.5 * np.sin(3.0)) < 1e-8


def forward_mode(**options):
    def end(u0):
        return ide.solve(EQUATION, u0, **options).u1

    return jax.jvp(end, (U0,), (jnp.ones_like(U0),))[1], jax.jacrev(lambda x: end(x).sum())(U0)


ADAPTIVE = {
    "solver": diffrax.Tsit5(),
    "stepsize_controller": diffrax.PIDController(rtol=1e-3, atol=1e-3),
}


@pytest.mark.parametrize(
    "options",
    [
        {"solver": ide.AlgebraicallyReversible(), "gradient": ide.Reversible()},
        {"solver": ide.ImplicitMidpoint()},
        ADAPTIVE,
    ],
)
def test_forward_mode_where_there_is_none(options):
    with pytest.raises(ide.InputError, match=r"forward mode.*gradient=Direct\(\)"):
        forward_mode(**options)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "options",
    [
        {"solver": ide.AlgebraicallyReversible()},
        pytest.param(ADAPTIVE, marks=pytest.mark.heavy),
    ],
)
def test_forward_mode_where_the_error_says_it_works(options):
    tangents, cotangents = forward_mode(**options, gradient=ide.Direct())
    assert abs(float(tangents.sum() - cotangents.sum())) < 1e-10
