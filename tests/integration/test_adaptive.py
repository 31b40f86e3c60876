"""Adaptive steps: tolerances, samples of their own, padding, and how a solve ends."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, largest, make_equation, random_state

import ide_transformer as ide
from ide_transformer.integration.adaptive.token_norm import TokenNorm


# Over four decades, in which steps are chosen by the tolerance and not by the intervals.
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
TIGHTER = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)


def slope_of_error(solver, tolerances, **options):
    """How the error follows the tolerance, on logarithmic axes."""
    equation = make_equation(intervals=2, std=0.3)
    u0 = random_state()
    exact = ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=64).u1

    @jax.jit
    def error(tolerance):
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, **options)
        solution = ide.solve(
            equation,
            u0,
            solver=solver,
            stepsize_controller=controller,
            max_steps=4096,
            throw=False,
        )
        return jnp.sqrt(jnp.mean((solution.u1 - exact) ** 2)), solution.succeeded

    errors = []
    for tolerance in tolerances:
        value, succeeded = error(tolerance)
        assert succeeded
        errors.append(float(value))
    return np.polyfit(np.log(tolerances), np.log(errors), 1)[0]


@pytest.mark.parametrize(
    ("solver", "tolerances"),
    [
        (diffrax.Bosh3(), TOLERANCES),
        (diffrax.Tsit5(), TIGHTER),
        pytest.param(diffrax.Dopri5(), TIGHTER, marks=pytest.mark.heavy),
    ],
    ids=repr,
)
def test_the_error_of_embedded_pairs_follows_the_tolerance(solver, tolerances):
    assert abs(slope_of_error(solver, tolerances) - 1) < 0.2


def test_the_error_of_the_embedded_splitting_follows_the_tolerance():
    """The estimate is of order h² a step, the error of the solution of order h² in all."""
    assert abs(slope_of_error(ide.LieStrang(ide.RK4()), TOLERANCES) - 1) < 0.2


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (ide.LieTrotter(), 1),
        pytest.param(ide.Strang(), 2, marks=pytest.mark.heavy),
        pytest.param(ide.RK4(), 4, marks=pytest.mark.heavy),
    ],
    ids=repr,
)
def test_step_doubling_makes_any_scheme_adaptive(solver, order):
    """It controls the error of a step, of order p + 1; that in all is of order p."""
    found = slope_of_error(diffrax.HalfSolver(solver), TOLERANCES[:3])
    assert abs(found - order / (order + 1)) < 0.2


def test_lie_strang_is_strang_with_an_estimate():
    equation, u0 = make_equation(), random_state()
    terms = equation.terms_of(0)
    pair, strang, lie = (
        solver.step(terms, 0.0, 1.0, u0, None, None, True)
        for solver in (ide.LieStrang(), ide.Strang(), ide.LieTrotter(diffrax.Heun()))
    )
    assert largest(pair[0], strang[0]) == 0
    assert largest(pair[1], strang[0] - lie[0]) == 0


def test_implicit_schemes_adapt_too():
    equation, u0 = make_equation(intervals=2), random_state()
    exact = ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=64).u1
    solution = ide.solve(
        equation,
        u0,
        solver=diffrax.Kvaerno3(),
        stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4),
    )
    assert largest(solution.u1, exact) < 1e-2
    assert float(solution.stats["field_evaluations"]) > 4 * int(solution.stats["accepted"])


def small_model(steps_for):
    control = ide.PiecewiseConstant.build(
        lambda key: (ide.Attention(8, 2, key=key, causal=True, std=0.5),),
        2,
        key=jax.random.key(0),
    )
    discretization = ide.Discretization(
        diffrax.Bosh3(),
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        steps_for=steps_for,
    )
    return ide.LanguageModel(
        11,
        5,
        8,
        control=control,
        constraint=ide.Free(),
        discretization=discretization,
        key=jax.random.key(1),
        std=1.0,
    )


def test_each_sample_can_have_steps_of_its_own():
    model = small_model("sample")
    inputs = jax.random.randint(jax.random.key(2), (3, 4, 5), 0, 11)
    solution = model.solve(inputs, saveat=diffrax.SaveAt(ts=jnp.array([1.0, 2.0])))
    assert solution.us.shape == (2, 3, 4, 5, 8)
    assert solution.stats["steps"].shape == (3, 4)
    alone = model.solve(inputs[1, 2])
    assert largest(solution.u1[1, 2], alone.u1) < 1e-13
    assert int(solution.stats["steps"][1, 2]) == int(alone.stats["steps"])
    together = small_model("batch").solve(inputs)
    assert together.stats["steps"].shape == ()
    assert len(set(solution.stats["steps"].ravel().tolist())) > 1


def test_padding_does_not_enter_the_error_norm():
    """Steps are those of the tokens alone, whatever stands in the padding."""
    equation = make_equation(intervals=2, causal=False)
    mask = jnp.arange(TOKENS) < 4
    padded = ide.Equation(equation.control, ide.Free(), equation.domain.padded(mask))
    short = ide.Equation(equation.control, ide.Free(), ide.TokenDomain.uniform(4))
    u0 = random_state()
    options = dict(
        solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6)
    )
    alone = ide.solve(short, u0[:4], **options)
    wild = u0.at[4:].set(1e3 * u0[4:])
    for start in (u0, wild):
        solution = ide.solve(padded, start, **options)
        assert largest(solution.u1[:4], alone.u1) < 1e-12
        assert int(solution.stats["steps"]) == int(alone.stats["steps"])


def test_token_norm_has_a_derivative_at_zero():
    norm = TokenNorm(jnp.array([1.0, 0.0]))
    assert float(norm(jnp.array([[3.0, 4.0], [9.0, 9.0]]))) == pytest.approx(12.5**0.5)
    assert not jnp.isnan(jax.grad(norm)(jnp.zeros((2, 2)))).any()


class Exploding(ide.AbstractOperator):
    """du/dt = u², which ends at t = 1/u0."""

    strength: jax.Array

    def __call__(self, u, domain):
        return self.strength * u**2


@pytest.mark.parametrize(
    ("options", "result"),
    [
        ({"rtol": 1e-6, "atol": 1e-6}, "max_steps_reached"),
        ({"rtol": 1e-6, "atol": 1e-6, "dtmin": 1e-3}, "dt_min_reached"),
    ],
)
def test_a_diverging_field_ends_with_a_name(options, result):
    options = {"force_dtmin": False, **options}
    control = ide.Tied((Exploding(jnp.array(1.0)),), 3)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(2))
    solution = ide.solve(
        equation,
        0.7 * jnp.ones((2, 3)),
        solver=diffrax.Tsit5(),
        stepsize_controller=diffrax.PIDController(**options),
        throw=False,
    )
    assert solution.result == getattr(diffrax.RESULTS, result)
    assert 1.4 < float(solution.failed_at) < 1.6
