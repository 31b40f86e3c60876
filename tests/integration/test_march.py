"""The march of fixed steps: against diffrax, exact solutions and loops over layers."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from solvers.linear_problem import (
    TOKENS,
    WIDTH,
    Mixing,
    after_layers,
    initial_state,
    layered_equation,
    matrices,
)

import ide_transformer as ide
from ide_transformer.integration.output import requested
from ide_transformer.solvers import count_evaluations, keeps_constraint


EQUATION = layered_equation(kind=Mixing)
U0 = initial_state(2)


def on(*operators, intervals, length=1.0):
    """An equation of the same operators at all depths."""
    return ide.Equation(ide.Tied(operators, intervals, length), ide.Free(), EQUATION.domain)


def test_by_hand_on_layers():
    """With a scheme that has no end-point stage; the others read the next layer there."""
    by_hand = eqx.filter_jit(diffrax.diffeqsolve)
    found = by_hand(EQUATION.terms, ide.LieTrotter(), 0.0, 3.0, 1.0, U0).ys[0]
    assert largest(ide.solve(EQUATION, U0, solver=ide.LieTrotter()).u1, found) < 1e-13


def test_states_after_layers_and_steps():
    def read(t, u, args):
        return {"state": u, "mean": args * u.mean(), "depth": t}

    for steps, saved in ((1, {"ts": EQUATION.knots}), (2, {"t0": True, "steps": True})):
        saveat = diffrax.SaveAt(fn=read, **saved)
        options = dict(saveat=saveat, args=2.0, steps_per_interval=steps)
        solution = ide.solve(EQUATION, U0, solver=ide.LieTrotter(), **options)
        depths = np.arange(3 * steps + 1) / steps
        assert largest(solution.ts, depths) == largest(solution.us["depth"], depths) == 0
        states = after_layers(U0, np.repeat(range(3), steps), 1 / steps)
        assert largest(solution.us["state"], states) < 1e-13
        assert largest(solution.u1, states[-1]) < 1e-13
        assert largest(solution.us["mean"], 2 * states.mean((1, 2, 3))) < 1e-13


def test_the_last_of_many_steps_ends_at_the_end():
    """49 times 1/49 is not 1. Steps that end at a boundary are asked for there."""
    for intervals, length in ((3, 1.0), (7, 4 / 7)):
        equation = on(ide.Damping(1.0), intervals=intervals, length=length)
        every, seventh = (
            requested(equation, diffrax.SaveAt(t1=True, steps=n), 49, throw=True).depths
            for n in (1, 7)
        )
        assert len(every) == 49 * intervals and every[-1] == equation.horizon
        assert np.isin(equation.knots[1:], every).all() and seventh == every[6::7]


class Exploding(ide.AbstractOperator):
    """u_t = c u², which leaves the real line after a depth of 1/(c u0)."""

    rate: jax.Array

    def __call__(self, u, domain):
        return self.rate * u * u


def exploded(rate, solver, **options):
    control = ide.PiecewiseConstant((Exploding(jnp.array([0.1, rate, 1.0])),))
    equation = ide.Equation(control, ide.Free(), EQUATION.domain)
    return ide.solve(equation, jnp.ones((TOKENS, 2)), solver=solver, **options)


def test_a_failed_solve_says_how_and_where():
    solution = exploded(1e200, ide.RK4(), throw=False)
    assert solution.result == diffrax.RESULTS.nonfinite and not solution.succeeded
    assert solution.failed_at == 2 and not jnp.isfinite(solution.u1).all()
    # The solution leaves the real line at t = 1 + 0.9/2. It ends where it stopped.
    tight = dict(stepsize_controller=diffrax.PIDController(1e-9, 1e-9), max_steps=64)
    solution = exploded(2.0, diffrax.Tsit5(), throw=False, **tight)
    assert solution.result == diffrax.RESULTS.max_steps_reached and not solution.succeeded
    assert 1.4 <= float(solution.failed_at) <= 1.45 and jnp.isfinite(solution.u1).all()


def test_padding_does_not_move_a_steady_state():
    """Where there is one only, as a relaxation to the input makes it: there the tokens that
    are no padding rest on a domain of their own, too."""
    block = Mixing(jnp.asarray(matrices(1)[0])), ide.Relaxation(4.0)
    seen = np.arange(TOKENS) < 2
    u0 = jnp.asarray(np.where(seen[:, None], U0, 1e3 * np.asarray(U0)))

    def equation_of(u0, domain):
        return ide.Equation(ide.Sourced(ide.Tied(block, 1), u0), ide.Free(), domain)

    padded = equation_of(u0, EQUATION.domain.padded(jnp.asarray(seen)))
    u1 = ide.solve(padded, u0, solver=ide.SteadyState(diffrax.Euler())).u1[0, :2]
    alone = equation_of(u0[0, :2], ide.TokenDomain.uniform(2))
    assert largest(eqx.filter_jit(alone.vector_field)(0.0, u1), 0) < 1e-10


SPHERE = layered_equation(kind=Mixing, constraint=ide.Sphere())


def test_a_scheme_ends_on_the_constraint():
    asked = ide.projected(ide.Strang())
    assert eqx.tree_equal(keeps_constraint(ide.Strang(), SPHERE.constraint), asked)
    found = ide.solve(SPHERE, ide.Sphere().project(U0), solver=ide.Strang())
    assert found.stats["constraint_residual"] < 1e-14


def test_a_constant_token_has_no_projection():
    constant = jnp.ones_like(U0)
    with pytest.raises(ide.InputError, match=r"Sphere: a token with equal features.*eps=1e-5"):
        ide.Sphere().project(constant)
    assert np.isfinite(ide.Sphere(eps=1e-5).project(constant)).all()
    hint = "between depths 0 and 1 of 3 with nonfinite.* If a token is constant, give the const"
    with pytest.raises(RuntimeError, match=hint):
        ide.solve(SPHERE, constant, solver=ide.Strang())


def test_field_evaluations():
    """In the first step of an interval, and in those that follow."""
    for solver, first, following in (
        (ide.Strang(ide.Projected(diffrax.Heun())), 3, 3),
        (diffrax.HalfSolver(ide.LieTrotter()), 3, 3),
        (ide.AdamsBashforth(3), 2, 1),
    ):
        count = count_evaluations(solver, EQUATION.control(0.0), WIDTH)
        assert count[:2] == (first, following), solver


def test_field_evaluations_of_a_march_without_jumps():
    equation = on(ide.Damping(1.0), intervals=2)
    stats = ide.solve(equation, U0, solver=diffrax.Bosh3(), steps_per_interval=2).stats
    assert stats["field_evaluations"] == 4 + 3 * 3 and stats["steps"] == stats["accepted"] == 4
