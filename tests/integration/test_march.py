"""The march of fixed steps: against diffrax, exact solutions and loops over layers."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, WIDTH, largest, make_block, make_equation, random_state

import ide_transformer as ide
from ide_transformer.integration.output import requested
from ide_transformer.solvers import count_evaluations


EQUATION = make_equation()
U0 = random_state(2)


@eqx.filter_jit
def by_hand(equation, solver, h):
    end = equation.horizon
    return diffrax.diffeqsolve(equation.terms, solver, 0.0, end, h, U0).ys[0]


def test_by_hand_on_layers():
    """Schemes without an end-point stage agree; with one they read the next layer there."""
    solve = lambda solver: ide.solve(EQUATION, U0, solver=solver)  # noqa: E731
    lie = ide.LieTrotter()
    assert largest(solve(lie).u1, by_hand(EQUATION, lie, 1.0)) < 1e-13
    heun = diffrax.Heun()
    assert largest(solve(heun).u1, by_hand(EQUATION, heun, 1.0)) > 1e-3


@eqx.filter_jit
def after_step(t, h, u):
    for operator in EQUATION.control(t):
        u = u + h * operator(u, EQUATION.domain)
    return u


def test_states_after_layers_and_steps():
    def read(t, u, args):
        return {"state": u, "mean": args * u.mean(), "depth": t}

    def kept(number, **saved):
        saveat = diffrax.SaveAt(fn=read, **saved)
        options = dict(saveat=saveat, args=2.0, steps_per_interval=number)
        return ide.solve(EQUATION, U0, solver=ide.LieTrotter(), **options)

    for steps, saved in ((1, {"ts": EQUATION.knots}), (2, {"t0": True, "steps": True})):
        solution = kept(steps, **saved)
        depths = np.arange(3 * steps + 1) / steps
        assert largest(solution.ts, depths) == largest(solution.us["depth"], depths) == 0
        states, u = np.asarray(solution.us["state"]), U0
        for number, t in enumerate(depths):
            assert largest(states[number], u) < 1e-13
            u = after_step(t, 1 / steps, u)
        assert largest(states[-1], solution.u1) < 1e-14
        assert largest(solution.us["mean"], 2 * states.mean((1, 2, 3))) < 1e-15


@pytest.mark.parametrize(("intervals", "length"), [(1, 1.0), (3, 1.0), (7, 4 / 7)])
def test_the_last_of_many_steps_ends_at_the_end(intervals, length):
    """49 times 1/49 is not 1. Steps that end at a boundary are asked for there."""
    control = ide.Tied((ide.Damping(1.0),), intervals, length)
    equation = ide.Equation(control, ide.Free(), EQUATION.domain)
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
    equation = ide.Equation(ide.Tied((operator,), 3), ide.Free(), EQUATION.domain)
    options = dict(solver=ide.RK4(), steps_per_interval=16, args=jnp.array(0.5))
    u1 = ide.solve(equation, U0, **options).u1
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


TIGHT = diffrax.PIDController(1e-9, 1e-9)
FAILURES = {
    "nonfinite": (1e200, 2.0, 2.0, dict(solver=ide.RK4())),
    # The solution leaves the real line at t = 1 + 0.9/2. It ends where it stopped.
    "max_steps_reached": (
        *(2.0, 1.4, 1.45),
        dict(solver=diffrax.Tsit5(), stepsize_controller=TIGHT, max_steps=64),
    ),
    "dt_min_reached": (
        *(2.0, 1.0, 1.45),
        dict(
            solver=diffrax.Tsit5(),
            stepsize_controller=diffrax.PIDController(
                1e-9, 1e-9, dtmin=0.01, force_dtmin=False
            ),
            max_steps=64,
        ),
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failed_solve_says_how_and_where(name):
    rate, least, most, options = FAILURES[name]
    solution = exploded([0.1, rate, 1.0], throw=False, **options)
    assert solution.result == getattr(diffrax.RESULTS, name) and not solution.succeeded
    assert least <= float(solution.failed_at) <= most
    assert jnp.isfinite(solution.u1).all() == (name != "nonfinite")
    if name != "dt_min_reached":
        with pytest.raises(Exception, match=f"between depths 1 and 2 of 3 with {name}"):
            exploded([0.1, rate, 1.0], **options)


MASK = np.arange(TOKENS)[None, :] < np.array([[3], [6]])


def test_padding_and_weights_come_with_the_domain():
    padded, short = (
        ide.Equation(EQUATION.control, ide.Free(), domain)
        for domain in (EQUATION.domain.padded(MASK), ide.TokenDomain.uniform(3))
    )
    u1 = ide.solve(padded, U0, solver=ide.LieTrotter()).u1
    alone = ide.solve(short, U0[0, :3], solver=ide.LieTrotter()).u1
    assert largest(u1[0, :3], alone) < 1e-13
    for state in (U0[0], random_state(3), random_state(1, 2, 3)):
        with pytest.raises(ide.InputError, match=r"a mask, of shape \(2, 6\); u0 must be"):
            ide.solve(padded, state, solver=ide.LieTrotter())


def test_padding_does_not_move_a_steady_state():
    """Where there is one only, as a relaxation to the input makes it."""
    block = (*make_block(jax.random.key(1), std=0.05, causal=False), ide.Relaxation(4.0))
    u0 = U0.at[0, 3:].multiply(1e3)

    def found(domain):
        u = u0[:, : domain.num_tokens]
        equation = ide.Equation(ide.Sourced(ide.Tied(block, 1), u), ide.Free(), domain)
        return ide.solve(equation, u, solver=ide.SteadyState(diffrax.Euler())).u1

    padded, short = found(EQUATION.domain.padded(MASK)), found(ide.TokenDomain.uniform(3))
    assert largest(padded[0, :3], short[0]) < 1e-10


@pytest.mark.heavy
def test_float32_states_stay_float32_in_adaptive_steps():
    equation = jax.tree.map(lambda x: x.astype(jnp.float32), make_equation(intervals=1))
    options = dict(stepsize_controller=diffrax.PIDController(1e-3, 1e-3))
    u1 = ide.solve(equation, U0.astype(jnp.float32), solver=diffrax.Bosh3(), **options).u1
    assert u1.dtype == jnp.float32


@eqx.filter_jit
def project(constraint, u):
    return constraint.project(u)


SPHERE = make_equation(constraint=ide.Sphere(), normalization=ide.Free())
ON_SPHERE = project(ide.Sphere(), random_state(2))


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
    with pytest.raises(RuntimeError, match="If a token is constant, give the constraint eps"):
        ide.solve(SPHERE, constant, solver=ide.RK4())


def test_the_sphere_projects_in_the_metric_of_its_gain():
    """The nearest state of S1 is the one nearest in `mean_y (v/γ)²`, not in the Euclidean
    distance."""
    draw = np.random.default_rng(0)
    gain, v = draw.uniform(0.5, 3, WIDTH), draw.normal(size=WIDTH)
    sphere = ide.Sphere(jnp.asarray(gain), jnp.full(WIDTH, 0.3))
    nearest = np.asarray(project(sphere, v))
    others = project(sphere, nearest + 0.1 * draw.normal(size=(2000, WIDTH)))
    for metric, is_nearest in ((gain, True), (1.0, False)):
        gaps = np.linalg.norm((np.asarray(others) - v) / metric, axis=-1)
        assert (gaps.min() > np.linalg.norm((nearest - v) / metric)) == is_nearest


@pytest.mark.parametrize(
    ("solver", "first", "following"),
    [
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
    ],
    ids=repr,
)
def test_field_evaluations(solver, first, following):
    count = count_evaluations(solver, EQUATION.control(0.0), U0.shape[-1])
    assert count[:2] == (first, following)


def test_field_evaluations_of_a_march_without_jumps():
    equation = ide.Equation(ide.Tied((ide.Damping(1.0),), 2), ide.Free(), EQUATION.domain)
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
