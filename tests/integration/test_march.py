"""The march of fixed steps, against diffrax, exact solutions and loops over layers; adaptive
steps: samples of their own, padding, and the tolerance."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.compare.convergence import march
from ide_transformer.integration import TokenNorm
from ide_transformer.integration.output import parse_saveat
from ide_transformer.solvers import count_evaluations, prepare_solver
from tests.helpers import TOKENS, WIDTH, largest, random_state
from tests.layered_models import HELD_OUT, model_of
from tests.solvers.linear_problem import (
    TOKENS as FEW,
    WIDTH as NARROW,
    Mixing,
    after_layers,
    initial_state,
    layered_equation,
)


EQUATION = layered_equation(kind=Mixing)
BATCH = initial_state(2)


def on(*operators, intervals, length=1.0):
    return ide.Equation(ide.Tied(operators, intervals, length), ide.Free(), EQUATION.domain)


def test_states_after_layers_and_steps():
    def read(t, u, args):
        return {"state": u, "mean": args * u.mean(), "depth": t}

    for steps, saved in ((1, {"ts": EQUATION.knots}), (2, {"t0": True, "steps": True})):
        saveat = diffrax.SaveAt(fn=read, **saved)
        options = dict(saveat=saveat, args=2.0, steps_per_interval=steps)
        solution = ide.solve(EQUATION, BATCH, solver=ide.LieTrotter(), **options)
        depths = np.arange(3 * steps + 1) / steps
        assert largest(solution.ts, depths) == largest(solution.us["depth"], depths) == 0
        states = after_layers(BATCH, np.repeat(range(3), steps), 1 / steps)
        assert largest(solution.us["state"], states) < 1e-13
        assert largest(solution.u1, states[-1]) < 1e-13
        assert largest(solution.us["mean"], 2 * states.mean((1, 2, 3))) < 1e-13


def test_the_last_of_many_steps_ends_at_the_end():
    """49 times 1/49 is not 1. Steps that end at a boundary are asked for there."""
    for intervals, length in ((3, 1.0), (7, 4 / 7)):
        equation = on(ide.Damping(1.0), intervals=intervals, length=length)
        every, seventh = (
            parse_saveat(equation, diffrax.SaveAt(t1=True, steps=n), 49, throw=True).depths
            for n in (1, 7)
        )
        assert len(every) == 49 * intervals and every[-1] == equation.horizon
        assert np.isin(equation.knots[1:], every).all() and seventh == every[6::7]
    # 0.1 in single precision is above 0.1.
    equation = on(ide.Damping(1.0), intervals=3, length=0.1)
    saveat = diffrax.SaveAt(ts=jnp.asarray(equation.knots, jnp.float32))
    assert parse_saveat(equation, saveat, 1, throw=True).depths == tuple(equation.knots)


class Decay(ide.AbstractOperator):
    """`u_t = -k u²`, told to the host; with k < 0 it ends at `t = -1/(k u0)`."""

    k: jax.Array

    def __call__(self, u, domain):
        jax.debug.callback(lambda: CALLS.append(1))
        return -self.k * u**2


CALLS = []


def exploded(rate, solver, **options):
    control = ide.PiecewiseConstant((Decay(-jnp.array([0.1, rate, 1.0])),))
    equation = ide.Equation(control, ide.Free(), EQUATION.domain)
    return ide.solve(equation, jnp.ones((FEW, 2)), solver=solver, **options)


def test_a_failed_solve_says_how_and_where():
    solution = exploded(1e200, diffrax.Heun(), throw=False)
    assert solution.result == diffrax.RESULTS.nonfinite and not solution.succeeded
    assert solution.failed_at == 2 and not jnp.isfinite(solution.u1).all()
    # The solution leaves the real line at t = 1 + 0.9/2. It ends where it stopped.
    solution = exploded(2.0, diffrax.Tsit5(), throw=False, max_steps=64, **within(1e-9))
    assert solution.result == diffrax.RESULTS.max_steps_reached and not solution.succeeded
    assert 1.4 <= float(solution.failed_at) <= 1.45 and jnp.isfinite(solution.u1).all()
    with pytest.raises(RuntimeError, match="between depths 1 and 2 of 3 with nonfinite"):
        exploded(1e200, diffrax.Heun())


SPHERE = layered_equation(kind=Mixing, constraint=ide.Sphere())


def test_a_scheme_ends_on_the_constraint():
    projected = ide.projected(ide.Strang())
    assert eqx.tree_equal(prepare_solver(ide.Strang(), SPHERE.constraint), projected)
    solution = ide.solve(SPHERE, ide.Sphere().project(BATCH), solver=ide.Strang())
    assert solution.stats["constraint_residual"] < 1e-14


def test_states_between_layers_are_on_the_constraint():
    """The state at depth 0 is the one that is passed, on the constraint or not."""
    saveat = diffrax.SaveAt(t0=True, steps=True, dense=True)
    options = dict(solver=diffrax.Bosh3(), steps_per_interval=2, saveat=saveat)
    solution = ide.solve(SPHERE, BATCH, **options)
    assert largest(solution.us[-1], solution.u1) < 1e-14
    assert jax.jit(ide.Sphere().residual)(solution.us[1:]).max() < 1e-13
    evaluate = eqx.filter_jit(lambda solution, t: solution.evaluate(t))
    assert largest(solution.us[0], BATCH) == largest(evaluate(solution, 0.0), BATCH) == 0
    assert largest(evaluate(solution, jnp.asarray(1.5)), solution.us[3]) < 1e-14
    assert largest(evaluate(solution, jnp.asarray(1.5 - 1e-9)), solution.us[3]) < 1e-7
    assert solution.stats["field_evaluations"] == 3 * (4 + 3)
    assert solution.stats["steps"] == solution.stats["accepted"] == 6


def test_no_layer_uses_a_stage_of_the_layer_before():
    """The last stage of Bosh3 is the first one of the next step, if the field does not jump."""
    options, u = dict(solver=diffrax.Bosh3(), steps_per_interval=2), BATCH
    for layer in range(3):
        operators = jax.tree.map(lambda x, n=layer: x[n], EQUATION.control.blocks)
        u = ide.solve(on(*operators, intervals=1), u, **options).u1
    assert largest(ide.solve(EQUATION, BATCH, **options).u1, u) < 1e-13


def test_a_constant_token_has_no_projection():
    constant = jnp.ones_like(BATCH)
    with pytest.raises(ide.InputError, match=r"Sphere.*eps=1e-5"):
        ide.Sphere().project(constant)
    assert np.isfinite(ide.Sphere(eps=1e-5).project(constant)).all()
    hint = "between depths 0 and 1 of 3 with nonfinite.* constant"
    with pytest.raises(RuntimeError, match=hint):
        ide.solve(SPHERE, constant, solver=ide.Strang())


def test_field_evaluations():
    for solver, first, following in (
        (diffrax.HalfSolver(ide.LieTrotter()), 3, 3),
        (ide.AdamsBashforth(3), 2, 1),
    ):
        count = count_evaluations(solver, EQUATION.control(0.0), NARROW)
        assert count[:2] == (first, following), solver


def test_a_first_step_that_is_tried_again_is_counted_again():
    """The last stage of the scheme is the first of the next step."""
    CALLS.clear()
    equation, scheme = on(Decay(jnp.asarray(30.0)), intervals=2), diffrax.Bosh3()
    stats = ide.solve(equation, jnp.ones_like(BATCH), solver=scheme, **within(1e-2)).stats
    evaluations = float(stats["field_evaluations"])
    jax.effects_barrier()
    assert stats["rejected"] > 0 and len(CALLS) == evaluations


def within(tolerance):
    return dict(stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance))


DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = random_state()


def test_states_at_any_depth_of_adaptive_steps():
    # `du/dt = -λ u`, with a rate for each interval.
    damped = ide.PiecewiseConstant((ide.Damping(np.outer([0.5, 2.0], np.ones(WIDTH))),))
    equation = ide.Equation(damped, ide.Free(), DOMAIN)
    saveat = diffrax.SaveAt(t0=True, ts=[0.3, 1.0, 1.7], t1=True, dense=True)
    solution = ide.solve(equation, U0, saveat=saveat, solver=diffrax.Bosh3(), **within(1e-7))
    ts, us, u1, stats = jax.device_get((solution.ts, solution.us, solution.u1, solution.stats))
    assert ts.tolist() == [0.0, 0.3, 1.0, 1.7, 2.0]
    passed = np.array([0, 0.15, 0.5, 1.9, 2.5])
    assert largest(us, np.multiply.outer(np.exp(-passed), U0)) < 1e-5
    evaluate = eqx.filter_jit(lambda solution, ts: jax.vmap(solution.evaluate)(ts))
    *inside, beyond = np.asarray(evaluate(solution, np.append(ts, 2.1)))
    assert largest(inside, us) < 1e-14 and np.isnan(beyond).all()
    assert largest(us[0], U0) < 1e-14 and largest(us[-1], u1) < 1e-14
    for t in (-0.1, np.nan):
        with pytest.raises(ide.InputError, match=r"t=.*(outside \[0, 2\]|finite)"):
            solution.evaluate(t)
    assert stats["accepted"] + stats["rejected"] == stats["steps"] > 6
    # Four stages in a first step of an interval, tried again or not, then three.
    firsts = stats["field_evaluations"] - 3 * stats["steps"]
    assert 2 <= firsts <= 2 + stats["rejected"]


@pytest.mark.heavy
def test_each_sample_of_a_model_can_have_steps_of_its_own():
    mesh = ide.Mesh(steps_for="sample", **within(1e-3))
    model = model_of("attention").with_solver(diffrax.Bosh3()).on(mesh)
    inputs = HELD_OUT.reshape(2, 2, -1)
    solution = model.solve(inputs, saveat=diffrax.SaveAt(ts=jnp.array([1.0, 4.0])))
    assert solution.us.shape == (2, *solution.u1.shape)
    steps = np.asarray(solution.stats["steps"])
    assert steps.shape == (2, 2) and len(np.unique(steps)) > 1
    alone = model.solve(inputs[1, 1])
    assert largest(solution.u1[1, 1], alone.u1) < 1e-12
    assert int(steps[1, 1]) == int(alone.stats["steps"])


def test_the_token_norm_has_a_derivative_at_zero_and_sees_no_padding():
    norm = jax.jit(jax.value_and_grad(TokenNorm(jnp.array([1.0, 0.0]))))
    for padding in (9.0, np.nan):
        assert norm(np.array([[3.0, 4.0], [padding, 9.0]]))[0] == pytest.approx(12.5**0.5)
    assert np.isnan(norm(np.array([[np.nan, 4.0], [9.0, 9.0]]))[0])
    assert not np.isnan(norm(np.zeros((2, 2)))[1]).any()


@pytest.mark.heavy
def test_the_error_follows_the_tolerance():
    """In decades in which steps are chosen by the tolerance and not by the intervals: the
    estimate is of order h² a step, the error of the solution of order h² in all."""
    exact = march(EQUATION, BATCH, diffrax.Dopri8(), jnp.asarray(64))

    @jax.jit
    def error(tolerance):
        options = dict(max_steps=4096, throw=False, **within(tolerance))
        solution = ide.solve(EQUATION, BATCH, solver=ide.LieStrang(ide.RK4()), **options)
        error = jnp.sqrt(jnp.mean((solution.u1 - exact) ** 2))
        return jnp.where(solution.succeeded, error, jnp.nan)

    tolerances = 1e-3, 1e-5, 1e-7
    errors = [float(error(tolerance)) for tolerance in tolerances]
    assert abs(np.polyfit(np.log(tolerances), np.log(errors), 1)[0] - 1) < 0.2
    implicit = ide.solve(EQUATION, BATCH, solver=diffrax.Kvaerno3(), **within(1e-4))
    assert largest(implicit.u1, exact) < 1e-2
    assert float(implicit.stats["field_evaluations"]) > 4 * int(implicit.stats["accepted"])
