"""Adaptive steps: the intervals, samples of their own, padding, and how a solve ends."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import TOKENS, largest, make_equation, random_state
from integration.exploding import exploding

import ide_transformer as ide
from ide_transformer.integration import TokenNorm


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "control",
    [ide.PiecewiseConstant, pytest.param(ide.PiecewiseLinear, marks=pytest.mark.heavy)],
)
def test_adaptive_steps_reach_the_tolerance(control):
    equation = make_equation(control)
    u0 = random_state()
    exact = ide.solve(equation, u0, solver=diffrax.Tsit5(), steps_per_interval=32).u1
    solution = ide.solve(equation, u0, solver=diffrax.Tsit5(), stepsize_controller=TIGHT)
    assert largest(solution.u1, exact) < 1e-7
    stats = solution.stats
    assert stats["accepted"] + stats["rejected"] == stats["steps"] > 6
    # Seven stages in the first step of an interval, six in those that follow.
    assert stats["field_evaluations"] == 6 * stats["steps"] + 3


@pytest.mark.heavy
def test_adaptive_intervals_start_with_the_step_of_the_last():
    """Without it the solve would begin each interval with a step of a layer and reject it."""
    equation = make_equation(ide.Tied, intervals=8)
    solution = ide.solve(
        equation, random_state(), solver=diffrax.Tsit5(), stepsize_controller=TIGHT
    )
    assert solution.stats["rejected"] < 8


@pytest.mark.heavy
def test_each_sample_has_its_own_steps_under_vmap():
    equation = make_equation()
    u0 = random_state(2) * jnp.array([0.1, 3.0])[:, None, None]

    def solve(u):
        return ide.solve(
            equation, u, solver=diffrax.Tsit5(), stepsize_controller=TIGHT, throw=False
        )

    together = jax.vmap(solve)(u0)
    assert together.stats["steps"][0] != together.stats["steps"][1]
    for sample in range(2):
        alone = solve(u0[sample])
        assert alone.stats["steps"] == together.stats["steps"][sample]
        assert largest(alone.u1, together.u1[sample]) < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"steps_per_interval": 32}, id="fixed", marks=pytest.mark.heavy),
        pytest.param({"stepsize_controller": TIGHT}, id="adaptive"),
    ],
)
def test_output_at_any_depth(options):
    equation = make_equation(intervals=2)
    u0 = random_state()
    solution = ide.solve(
        equation,
        u0,
        solver=diffrax.Tsit5(),
        saveat=diffrax.SaveAt(t0=True, ts=[0.3, 1.0, 1.7], t1=True, dense=True),
        **options,
    )
    evaluate = eqx.filter_jit(lambda solution, t: solution.evaluate(t))
    assert solution.ts.tolist() == [0.0, 0.3, 1.0, 1.7, 2.0]
    assert largest(solution.us[0], u0) < 1e-14
    assert largest(solution.us[-1], solution.u1) < 1e-12
    for t, u in zip(solution.ts[1:-1], solution.us[1:-1], strict=True):
        assert largest(evaluate(solution, t), u) < 1e-14
    assert largest(solution.us[1:-1], by_hand()) < 1e-5


@ft.cache
def by_hand():
    equation = make_equation(intervals=2)
    return eqx.filter_jit(diffrax.diffeqsolve)(
        equation.terms,
        diffrax.Tsit5(),
        0.0,
        2.0,
        0.01,
        random_state(),
        saveat=diffrax.SaveAt(ts=[0.3, 1.0, 1.7]),
        stepsize_controller=diffrax.ClipStepSizeController(TIGHT, jump_ts=[1.0]),
    ).ys


def test_a_failed_adaptive_solve_says_which_and_where():
    equation = exploding([0.1, 2.0, 1.0])
    u0 = jnp.ones((TOKENS, 2))
    options = dict(solver=diffrax.Tsit5(), stepsize_controller=TIGHT, max_steps=64)
    with pytest.raises(Exception, match="between depths 1 and 2 of 3 with max_steps_reached"):
        ide.solve(equation, u0, **options)
    solution = ide.solve(equation, u0, throw=False, **options)
    assert solution.result == diffrax.RESULTS.max_steps_reached
    # The solution leaves the real line at t = 1 + 0.9/2.
    assert 1.4 < float(solution.failed_at) < 1.45
    # It ends where it stopped, with a name for the reason.
    assert jnp.isfinite(solution.u1).all()
    short = diffrax.PIDController(1e-9, 1e-9, dtmin=0.01, force_dtmin=False)
    solution = ide.solve(equation, u0, throw=False, **{**options, "stepsize_controller": short})
    assert solution.result == diffrax.RESULTS.dt_min_reached


def test_lie_strang_is_strang_with_an_estimate():
    equation, u0 = make_equation(), random_state()
    terms = equation.terms_of(0)
    solvers = ide.LieStrang(), ide.Strang(), ide.LieTrotter(diffrax.Heun())
    pair, strang, lie = jax.jit(
        lambda u: [solver.step(terms, 0.0, 1.0, u, None, None, True)[:2] for solver in solvers]
    )(u0)
    assert largest(pair[0], strang[0]) == 0
    assert largest(pair[1], strang[0] - lie[0]) == 0


@pytest.mark.heavy
def test_implicit_schemes_adapt_too():
    equation, u0 = make_equation(intervals=2), random_state()
    exact = ide.solve(equation, u0, solver=ide.RK4(), steps_per_interval=16).u1
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


@pytest.mark.heavy
def test_each_sample_can_have_steps_of_its_own():
    model = small_model("sample")
    inputs = jax.random.randint(jax.random.key(2), (2, 3, 5), 0, 11)
    solution = model.solve(inputs, saveat=diffrax.SaveAt(ts=jnp.array([1.0, 2.0])))
    assert solution.us.shape == (2, 2, 3, 5, 8)
    assert solution.stats["steps"].shape == (2, 3)
    alone = model.solve(inputs[1, 2])
    assert largest(solution.u1[1, 2], alone.u1) < 1e-13
    assert int(solution.stats["steps"][1, 2]) == int(alone.stats["steps"])
    together = eqx.filter_eval_shape(small_model("batch").solve, inputs)
    assert together.stats["steps"].shape == ()
    assert len(set(solution.stats["steps"].ravel().tolist())) > 1


@pytest.mark.heavy
def test_padding_does_not_enter_the_error_norm():
    """Steps are those of the tokens alone, whatever stands in the padding."""
    equation = make_equation(intervals=2, causal=False)
    mask = jnp.arange(TOKENS) < 4
    padded = ide.Equation(equation.control, ide.Free(), equation.domain.padded(mask))
    short = ide.Equation(equation.control, ide.Free(), ide.TokenDomain.uniform(4))
    u0 = random_state()
    options = dict(
        solver=diffrax.Bosh3(), stepsize_controller=diffrax.PIDController(rtol=1e-4, atol=1e-4)
    )
    alone = ide.solve(short, u0[:4], **options)
    wild = u0.at[4:].set(1e3 * u0[4:])
    for start in (u0, wild):
        solution = ide.solve(padded, start, **options)
        assert largest(solution.u1[:4], alone.u1) < 1e-12
        assert int(solution.stats["steps"]) == int(alone.stats["steps"])


def test_the_token_norm_has_a_derivative_at_zero_and_sees_no_padding():
    norm = TokenNorm(jnp.array([1.0, 0.0]))
    for padding in (9.0, jnp.nan):
        error = jnp.array([[3.0, 4.0], [padding, 9.0]])
        assert float(norm(error)) == pytest.approx(12.5**0.5)
    assert jnp.isnan(norm(jnp.array([[jnp.nan, 4.0], [9.0, 9.0]])))
    assert not jnp.isnan(jax.grad(norm)(jnp.zeros((2, 2)))).any()
