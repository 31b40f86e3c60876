"""The march of fixed steps: against diffrax, exact solutions and loops over layers."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, make_equation, random_state
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
from ide_transformer.solvers import count_evaluations


EQUATION = layered_equation(kind=Mixing)
U0 = initial_state(2)


def on(*operators, intervals, domain=EQUATION.domain, length=1.0):
    """An equation of the same operators at all depths."""
    return ide.Equation(ide.Tied(operators, intervals, length), ide.Free(), domain)


@eqx.filter_jit
def by_hand(equation, solver, h):
    end = equation.horizon
    return diffrax.diffeqsolve(equation.terms, solver, 0.0, end, h, U0).ys[0]


def test_by_hand_on_layers():
    """Schemes without an end-point stage agree; with one they read the next layer there."""
    for solver, agrees in ((ide.LieTrotter(), True), (diffrax.Heun(), False)):
        u1 = ide.solve(EQUATION, U0, solver=solver).u1
        difference = largest(u1, by_hand(EQUATION, solver, 1.0))
        assert difference < 1e-13 if agrees else difference > 1e-3


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


@pytest.mark.parametrize(("intervals", "length"), [(1, 1.0), (3, 1.0), (7, 4 / 7)])
def test_the_last_of_many_steps_ends_at_the_end(intervals, length):
    """49 times 1/49 is not 1. Steps that end at a boundary are asked for there."""
    equation = on(ide.Damping(1.0), intervals=intervals, length=length)
    every, seventh = (
        requested(equation, diffrax.SaveAt(t1=True, steps=n), 49, throw=True).depths
        for n in (1, 7)
    )
    assert len(every) == 49 * intervals and every[-1] == equation.horizon
    assert np.isin(equation.knots[1:], every).all() and seventh == every[6::7]


class Forced(ide.AbstractOperator):
    """`du/dt = args cos t`."""

    force: jax.Array = 0.0

    def at(self, t, args):
        return Forced(args * jnp.cos(t))

    def __call__(self, u, domain):
        return jnp.broadcast_to(self.force, u.shape)


@pytest.mark.parametrize("operator", [Forced(), ide.Scaled(Forced(), 1.0)])
def test_an_operator_that_asks_for_depth_and_arguments_gets_them(operator):
    options = dict(solver=ide.RK4(), steps_per_interval=16, args=jnp.array(0.5))
    u1 = ide.solve(on(operator, intervals=3), U0, **options).u1
    assert largest(u1, np.asarray(U0) + 0.5 * np.sin(3.0)) < 1e-8


class Exploding(ide.AbstractOperator):
    """u_t = c u², which leaves the real line after a depth of 1/(c u0)."""

    rate: jax.Array

    def __call__(self, u, domain):
        return self.rate * u * u


def exploded(rates, solver, **options):
    control = ide.PiecewiseConstant((Exploding(jnp.array(rates)),))
    equation = ide.Equation(control, ide.Free(), EQUATION.domain)
    return ide.solve(equation, jnp.ones((TOKENS, 2)), solver=solver, **options)


def test_an_operator_of_a_user():
    """1/u falls linearly: u(t) = 1 / (1/u0 - t c)."""
    u1 = exploded([0.1, 0.2], ide.RK4(), steps_per_interval=16).u1
    assert largest(u1, 1 / 0.7) < 1e-6


def test_a_failed_solve_says_how_and_where():
    solution = exploded([0.1, 1e200, 1.0], ide.RK4(), throw=False)
    assert solution.result == diffrax.RESULTS.nonfinite and not solution.succeeded
    assert solution.failed_at == 2 and not jnp.isfinite(solution.u1).all()
    # The solution leaves the real line at t = 1 + 0.9/2. It ends where it stopped.
    tight = dict(stepsize_controller=diffrax.PIDController(1e-9, 1e-9), max_steps=64)
    solution = exploded([0.1, 2.0, 1.0], diffrax.Tsit5(), throw=False, **tight)
    assert solution.result == diffrax.RESULTS.max_steps_reached and not solution.succeeded
    assert 1.4 <= float(solution.failed_at) <= 1.45 and jnp.isfinite(solution.u1).all()
    with pytest.raises(Exception, match="between depths 1 and 2 of 3 with max_steps_reached"):
        exploded([0.1, 2.0, 1.0], diffrax.Tsit5(), **tight)


MASK = np.arange(TOKENS)[None, :] < np.array([[2], [3]])


def test_padding_and_weights_come_with_the_domain():
    padded = ide.Equation(EQUATION.control, ide.Free(), EQUATION.domain.padded(MASK))
    u1 = ide.solve(padded, U0, solver=ide.LieTrotter()).u1
    assert largest(u1[0, :2], after_layers(U0[0, :2], range(3))[-1]) < 1e-13
    for state in (U0[0], initial_state(3), initial_state(1, 2, 3)):
        with pytest.raises(ide.InputError, match=r"a mask, of shape \(2, 3\); u0 must be"):
            ide.solve(padded, state, solver=ide.LieTrotter())


def test_padding_does_not_move_a_steady_state():
    """Where there is one only, as a relaxation to the input makes it: there the tokens that
    are no padding rest on a domain of their own, too."""
    block = Mixing(jnp.asarray(matrices(1)[0])), ide.Relaxation(4.0)
    u0 = U0.at[0, 2:].multiply(1e3)

    def equation_of(u0, domain):
        return ide.Equation(ide.Sourced(ide.Tied(block, 1), u0), ide.Free(), domain)

    padded = equation_of(u0, EQUATION.domain.padded(MASK))
    u1 = ide.solve(padded, u0, solver=ide.SteadyState(diffrax.Euler())).u1[0, :2]
    alone = equation_of(u0[0, :2], ide.TokenDomain.uniform(2))
    assert largest(alone.vector_field(0.0, u1), 0) < 1e-10


@pytest.mark.heavy
def test_float32_states_stay_float32_in_adaptive_steps():
    equation = jax.tree.map(lambda x: x.astype(jnp.float32), make_equation(intervals=1))
    options = dict(stepsize_controller=diffrax.PIDController(1e-3, 1e-3))
    u0 = random_state().astype(jnp.float32)
    assert ide.solve(equation, u0, solver=diffrax.Bosh3(), **options).u1.dtype == jnp.float32


@eqx.filter_jit
def project(constraint, u):
    return constraint.project(u)


SPHERE = layered_equation(kind=Mixing, constraint=ide.Sphere())
ON_SPHERE = project(ide.Sphere(), U0)


def test_a_scheme_ends_on_the_constraint():
    found, asked = (
        ide.solve(SPHERE, ON_SPHERE, solver=x)
        for x in (ide.Strang(), ide.projected(ide.Strang()))
    )
    assert found.stats["constraint_residual"] < 1e-14
    assert largest(found.u1, asked.u1) == 0


def test_the_plain_form_can_still_be_said():
    """On tangential fields alone the state leaves the sphere by the error of the scheme."""
    plain = ide.Tangential(ide.RK4())
    far, near = (
        ide.solve(SPHERE, ON_SPHERE, solver=plain, steps_per_interval=steps) for steps in (1, 8)
    )
    far, near = (float(x.stats["constraint_residual"]) for x in (far, near))
    assert 0.1 > far > 1000 * near > 0
    assert type(ide.projected(ide.Projected(ide.RK4())).solver) is ide.RK4
    free = [ide.solve(EQUATION, U0, solver=x).u1 for x in (plain, ide.RK4())]
    assert largest(*free) < 1e-14


def test_a_constant_token_has_no_projection():
    constant = jnp.ones_like(U0)
    with pytest.raises(ide.InputError, match=r"Sphere: a token with equal features.*eps=1e-5"):
        ide.Sphere().project(constant)
    assert np.isfinite(project(ide.Sphere(eps=1e-5), constant)).all()
    hint = "between depths 0 and 1 of 3 with nonfinite.* If a token is constant, give the const"
    with pytest.raises(RuntimeError, match=hint):
        ide.solve(SPHERE, constant, solver=ide.RK4())


# Evaluations in the first step of an interval, and in those that follow.
EVALUATIONS = [
    (diffrax.Tsit5(), 7, 6),
    (ide.RK4(), 4, 4),
    (ide.LieTrotter(), 1, 1),
    (ide.Strang(diffrax.Euler()), 1.5, 1.5),
    (ide.Strang(ide.Projected(diffrax.Heun())), 3, 3),
    (diffrax.HalfSolver(ide.LieTrotter()), 3, 3),
    (ide.LieStrang(diffrax.Heun()), 5, 5),
    (ide.ParallelSplitting(), 1, 1),
    (ide.Residual(ide.RK4()), 4, 4),
    (ide.AdamsBashforth(3), 2, 1),
    (ide.Leapfrog(), 1, 1),
    (ide.Nesterov(), 1, 1),
]


@pytest.mark.parametrize(("solver", "first", "following"), EVALUATIONS, ids=repr)
def test_field_evaluations(solver, first, following):
    count = count_evaluations(solver, EQUATION.control(0.0), WIDTH)
    assert count[:2] == (first, following)


def test_field_evaluations_of_a_march_without_jumps():
    equation = on(ide.Damping(1.0), intervals=2)
    stats = ide.solve(equation, U0, solver=diffrax.Bosh3(), steps_per_interval=2).stats
    assert stats["field_evaluations"] == 4 + 3 * 3 and stats["steps"] == stats["accepted"] == 4


@pytest.mark.heavy
def test_evaluations_of_implicit_schemes_are_counted_as_they_are_made():
    fewer, more = (
        ide.solve(EQUATION, U0, solver=ide.ImplicitMidpoint(tolerance)).stats
        for tolerance in (1e-2, 1e-10)
    )
    # At least the guess, a residual and a product with the Jacobian in each step.
    assert 9 <= float(fewer["field_evaluations"]) < float(more["field_evaluations"])
