"""Adaptive steps: the intervals, samples of their own, padding, and the tolerance."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, WIDTH, largest, make_equation, random_state
from layered_models import HELD_OUT, model_of
from solvers.linear_problem import Mixing, layered_equation

import ide_transformer as ide
from ide_transformer.integration import TokenNorm


def within(tolerance):
    return dict(stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance))


ADAPTIVE = dict(solver=diffrax.Tsit5(), **within(1e-9))
DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = random_state()


@pytest.mark.parametrize(
    "options", [ADAPTIVE, dict(solver=diffrax.Tsit5(), steps_per_interval=32)]
)
def test_states_at_any_depth_of_fixed_and_adaptive_steps(options):
    # `du/dt = -λ u`, with a rate for each interval.
    damped = ide.PiecewiseConstant((ide.Damping(np.outer([0.5, 2.0], np.ones(WIDTH))),))
    equation = ide.Equation(damped, ide.Free(), DOMAIN)
    saveat = diffrax.SaveAt(t0=True, ts=[0.3, 1.0, 1.7], t1=True, dense=True)
    found = ide.solve(equation, U0, saveat=saveat, **options)
    ts, us, u1, stats = jax.device_get((found.ts, found.us, found.u1, found.stats))
    assert ts.tolist() == [0.0, 0.3, 1.0, 1.7, 2.0]
    passed = np.array([0, 0.15, 0.5, 1.9, 2.5])
    assert largest(us, np.multiply.outer(np.exp(-passed), U0)) < 1e-7
    evaluate = eqx.filter_jit(lambda solution, ts: jax.vmap(solution.evaluate)(ts))
    *inside, beyond = np.asarray(evaluate(found, np.append(ts, 2.1)))
    assert largest(inside, us) < 1e-14 and np.isnan(beyond).all()
    assert largest(us[0], U0) < 1e-14 and largest(us[-1], u1) < 1e-14
    for t in (-0.1, np.nan):
        with pytest.raises(ide.InputError, match=r"t=.*(in \[0, 2\]|finite)"):
            found.evaluate(t)
    assert stats["accepted"] + stats["rejected"] == stats["steps"] > 6
    # Seven stages in the first step of an interval, six in those that follow.
    assert stats["field_evaluations"] == 6 * stats["steps"] + 2


@pytest.mark.heavy
def test_each_sample_of_a_model_can_have_steps_of_its_own():
    options = dict(solver=diffrax.Bosh3(), steps_for="sample", **within(1e-3))
    model, inputs = model_of("attention").with_options(**options), HELD_OUT.reshape(2, 2, -1)
    solution = model.solve(inputs, saveat=diffrax.SaveAt(ts=jnp.array([1.0, 4.0])))
    assert solution.us.shape == (2, *solution.u1.shape)
    steps = np.asarray(solution.stats["steps"])
    assert steps.shape == (2, 2) and len(np.unique(steps)) > 1
    alone = model.solve(inputs[1, 1])
    assert largest(solution.u1[1, 1], alone.u1) < 1e-12
    assert int(steps[1, 1]) == int(alone.stats["steps"])


@pytest.mark.heavy
def test_padding_does_not_enter_the_error_norm():
    """Steps are those of the tokens alone, whatever stands in the padding."""
    control, u0 = layered_equation(layers=2, kind=Mixing).control, random_state(width=4)

    def solved(u, domain):
        equation = ide.Equation(control, ide.Free(), domain)
        return ide.solve(equation, u, solver=diffrax.Bosh3(), **within(1e-4))

    alone = solved(u0[:4], ide.TokenDomain.uniform(4))
    for start in (u0, u0.at[4:].multiply(1e3)):
        padded = solved(start, DOMAIN.padded(jnp.arange(TOKENS) < 4))
        assert largest(padded.u1[:4], alone.u1) < 1e-12
        assert int(padded.stats["steps"]) == int(alone.stats["steps"])


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
    equation = make_equation(intervals=2, std=0.3)
    exact = ide.solve(equation, U0, solver=diffrax.Dopri8(), steps_per_interval=64).u1

    @jax.jit
    def error(tolerance):
        options = dict(max_steps=4096, throw=False, **within(tolerance))
        solution = ide.solve(equation, U0, solver=ide.LieStrang(ide.RK4()), **options)
        error = jnp.sqrt(jnp.mean((solution.u1 - exact) ** 2))
        return jnp.where(solution.succeeded, error, jnp.nan)

    tolerances = 1e-3, 1e-5, 1e-7
    errors = [float(error(tolerance)) for tolerance in tolerances]
    assert abs(np.polyfit(np.log(tolerances), np.log(errors), 1)[0] - 1) < 0.2
    implicit = ide.solve(equation, U0, solver=diffrax.Kvaerno3(), **within(1e-4))
    assert largest(implicit.u1, exact) < 1e-2
    assert float(implicit.stats["field_evaluations"]) > 4 * int(implicit.stats["accepted"])
