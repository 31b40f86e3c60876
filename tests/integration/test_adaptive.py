"""Adaptive steps: the intervals, samples of their own, padding, and the tolerance."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, WIDTH, fast_first, largest, make_equation, random_state
from layered_models import HELD_OUT, model_of
from solvers.linear_problem import Mixing, initial_state, layered_equation

import ide_transformer as ide
from ide_transformer.integration import TokenNorm


ADAPTIVE = dict(stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-9))
DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = random_state()


def damped(*rates):
    """`du/dt = -λ u`, with a rate for each interval."""
    control = ide.PiecewiseConstant((ide.Damping(np.outer(rates, np.ones(WIDTH))),))
    return ide.Equation(control, ide.Free(), DOMAIN)


@eqx.filter_jit
def evaluate(solution, ts):
    return jax.vmap(solution.evaluate)(ts)


@pytest.mark.parametrize("options", [dict(steps_per_interval=32), ADAPTIVE])
def test_states_at_any_depth_of_fixed_and_adaptive_steps(options):
    saveat = diffrax.SaveAt(t0=True, ts=[0.3, 1.0, 1.7], t1=True, dense=True)
    found = ide.solve(damped(0.5, 2.0), U0, solver=diffrax.Tsit5(), saveat=saveat, **options)
    ts, us, u1, stats = jax.device_get((found.ts, found.us, found.u1, found.stats))
    assert ts.tolist() == [0.0, 0.3, 1.0, 1.7, 2.0]
    passed = np.array([0, 0.15, 0.5, 1.9, 2.5])
    assert largest(us, np.multiply.outer(np.exp(-passed), U0)) < 1e-7
    *inside, beyond = np.asarray(evaluate(found, np.append(ts, 2.1)))
    assert largest(inside, us) < 1e-14 and np.isnan(beyond).all()
    assert largest(us[0], U0) < 1e-14 and largest(us[-1], u1) < 1e-14
    for t in (-0.1, 2.1, np.nan):
        with pytest.raises(ide.InputError, match=r"t=.*(in \[0, 2\]|finite)"):
            found.evaluate(t)
    assert stats["accepted"] + stats["rejected"] == stats["steps"] > 6
    # Seven stages in the first step of an interval, six in those that follow.
    assert stats["field_evaluations"] == 6 * stats["steps"] + 2


def test_each_sample_has_its_own_steps_under_vmap():
    equation = ide.Equation(ide.Tied((ide.Damping(1.0),), 8), ide.Free(), DOMAIN)
    u0 = np.asarray(random_state(2)) * np.array([1e-4, 3.0])[:, None, None]

    def solve(u):
        return ide.solve(equation, u, solver=diffrax.Tsit5(), throw=False, **ADAPTIVE)

    solutions = jax.vmap(solve)(u0), solve(u0[1])
    (together, steps), (alone, stats) = jax.device_get([(x.u1, x.stats) for x in solutions])
    assert steps["steps"][0] != steps["steps"][1] == stats["steps"]
    assert largest(alone, together[1]) < 1e-12
    # Without the step of the last, each interval would begin with one of a layer, rejected.
    assert stats["rejected"] < 8


@pytest.mark.heavy
def test_each_sample_of_a_model_can_have_steps_of_its_own():
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    together, model = (
        model_of("attention").with_options(
            solver=diffrax.Bosh3(), stepsize_controller=controller, steps_for=each
        )
        for each in ("batch", "sample")
    )
    inputs = HELD_OUT.reshape(2, 2, -1)
    solution = model.solve(inputs, saveat=diffrax.SaveAt(ts=jnp.array([1.0, 4.0])))
    assert solution.us.shape == (2, *solution.u1.shape)
    steps = solution.stats["steps"]
    assert steps.shape == (2, 2) and len(set(steps.ravel().tolist())) > 1
    alone = model.solve(inputs[1, 1])
    assert largest(solution.u1[1, 1], alone.u1) < 1e-12
    assert int(steps[1, 1]) == int(alone.stats["steps"])
    assert eqx.filter_eval_shape(together.solve, inputs).stats["steps"].shape == ()


@pytest.mark.heavy
def test_padding_does_not_enter_the_error_norm():
    """Steps are those of the tokens alone, whatever stands in the padding."""
    control = layered_equation(layers=2, kind=Mixing).control
    domain = DOMAIN.padded(jnp.arange(TOKENS) < 4)
    u0 = random_state(width=4)

    def solved(u, domain):
        controller = diffrax.PIDController(rtol=1e-4, atol=1e-4)
        equation = ide.Equation(control, ide.Free(), domain)
        return ide.solve(equation, u, solver=diffrax.Bosh3(), stepsize_controller=controller)

    alone = solved(u0[:4], ide.TokenDomain.uniform(4))
    for start in (u0, u0.at[4:].multiply(1e3)):
        padded = solved(start, domain)
        assert largest(padded.u1[:4], alone.u1) < 1e-12
        assert int(padded.stats["steps"]) == int(alone.stats["steps"])


def test_the_token_norm_has_a_derivative_at_zero_and_sees_no_padding():
    norm = jax.jit(jax.value_and_grad(TokenNorm(jnp.array([1.0, 0.0]))))
    for padding in (9.0, np.nan):
        assert norm(np.array([[3.0, 4.0], [padding, 9.0]]))[0] == pytest.approx(12.5**0.5)
    assert np.isnan(norm(np.array([[np.nan, 4.0], [9.0, 9.0]]))[0])
    assert not np.isnan(norm(np.zeros((2, 2)))[1]).any()


def test_lie_strang_is_strang_with_an_estimate():
    terms = layered_equation(kind=Mixing).terms_of(0)
    solvers = ide.LieStrang(), ide.Strang(), ide.LieTrotter(diffrax.Heun())
    pair, strang, lie = jax.jit(
        lambda u: [solver.step(terms, 0.0, 1.0, u, None, None, True)[:2] for solver in solvers]
    )(initial_state())
    assert largest(pair[0], strang[0]) == 0
    assert largest(pair[1], np.asarray(strang[0]) - np.asarray(lie[0])) == 0


@pytest.mark.heavy
def test_implicit_schemes_adapt_too():
    equation, u0 = layered_equation(layers=2, kind=Mixing), initial_state()
    exact = ide.solve(equation, u0, solver=ide.RK4(), steps_per_interval=16).u1
    controller = diffrax.PIDController(rtol=1e-4, atol=1e-4)
    solution = ide.solve(
        equation, u0, solver=diffrax.Kvaerno3(), stepsize_controller=controller
    )
    assert largest(solution.u1, exact) < 1e-2
    assert float(solution.stats["field_evaluations"]) > 4 * int(solution.stats["accepted"])


# The estimate is of order h² a step, the error of the solution of order h² in all.
SPLITTING = ide.LieStrang(ide.RK4()), (1e-3, 1e-5, 1e-7), 1
# Step doubling controls the error of a step, of order p + 1; that in all is of order p.
DOUBLING = diffrax.HalfSolver(ide.LieTrotter()), (1e-3, 1e-4, 1e-5), 1 / 2


@pytest.mark.parametrize(
    ("solver", "tolerances", "slope"), fast_first(0, [SPLITTING, DOUBLING], heavy=1)
)
def test_the_error_follows_the_tolerance(solver, tolerances, slope):
    """In decades in which steps are chosen by the tolerance and not by the intervals."""
    equation = make_equation(intervals=2, std=0.3)
    exact = ide.solve(equation, U0, solver=diffrax.Dopri8(), steps_per_interval=64).u1

    @jax.jit
    def error(tolerance):
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance)
        options = dict(stepsize_controller=controller, max_steps=4096, throw=False)
        solution = ide.solve(equation, U0, solver=solver, **options)
        error = jnp.sqrt(jnp.mean((solution.u1 - exact) ** 2))
        return jnp.where(solution.succeeded, error, jnp.nan)

    errors = [float(error(tolerance)) for tolerance in tolerances]
    found = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert abs(found - slope) < 0.2
