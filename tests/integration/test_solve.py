"""The march, the adaptive solve, and what they refuse."""

import diffrax
import jax
import jax.numpy as jnp
import pytest
from helpers import TOKENS, WIDTH, largest, make_equation, random_state

import ide_transformer as ide
from ide_transformer.solvers import count_evaluations


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("control", [ide.PiecewiseLinear, ide.Tied])
@pytest.mark.parametrize(
    "solver",
    [diffrax.Euler(), diffrax.Heun(), diffrax.Tsit5(), ide.RK4(), ide.Strang()],
    ids=repr,
)
def test_by_hand_where_the_control_is_continuous(control, solver):
    equation = make_equation(control)
    u0 = random_state(2)
    marched = ide.solve(equation, u0, solver=solver, steps_per_interval=2).u1
    by_hand = diffrax.diffeqsolve(equation.terms, solver, 0.0, 3.0, 0.5, u0).ys[0]
    assert largest(marched, by_hand) < 1e-13


def test_by_hand_on_layers():
    """Schemes without an end-point stage agree; with one they read the next layer there."""
    equation = make_equation()
    u0 = random_state()

    def difference(solver):
        marched = ide.solve(equation, u0, solver=solver).u1
        return largest(
            marched, diffrax.diffeqsolve(equation.terms, solver, 0.0, 3.0, 1.0, u0).ys[0]
        )

    assert difference(diffrax.Euler()) < 1e-13
    assert difference(diffrax.Midpoint()) < 1e-13
    assert difference(ide.LieTrotter()) < 1e-13
    assert difference(diffrax.Heun()) > 1e-3


@pytest.mark.parametrize(
    "solver",
    [
        diffrax.Ralston(),
        diffrax.Bosh3(),
        diffrax.Dopri5(),
        diffrax.Dopri8(),
        diffrax.LeapfrogMidpoint(),
        diffrax.ReversibleHeun(),
    ],
    ids=repr,
)
def test_explicit_solvers_of_diffrax_work_unchanged(solver):
    """Also those that carry a state from step to step, through the interval boundaries."""
    equation = make_equation(ide.PiecewiseLinear)
    u0 = random_state()
    marched = ide.solve(equation, u0, solver=solver, steps_per_interval=4).u1
    by_hand = diffrax.diffeqsolve(equation.terms, solver, 0.0, 3.0, 0.25, u0).ys[0]
    assert largest(marched, by_hand) < 1e-12


@pytest.mark.parametrize("control", [ide.PiecewiseConstant, ide.PiecewiseLinear])
def test_adaptive_steps_reach_the_tolerance(control):
    equation = make_equation(control)
    u0 = random_state()
    exact = ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=48).u1
    solution = ide.solve(equation, u0, solver=diffrax.Tsit5(), stepsize_controller=TIGHT)
    assert largest(solution.u1, exact) < 1e-7
    stats = solution.stats
    assert stats["accepted"] + stats["rejected"] == stats["steps"] > 6
    # Seven stages in the first step of an interval, six in those that follow.
    assert stats["field_evaluations"] == 6 * stats["steps"] + 3


@pytest.mark.parametrize(
    "solver",
    [
        ide.LieTrotter(),
        pytest.param(ide.Strang(), marks=pytest.mark.heavy),
        ide.Projected(ide.Strang()),
    ],
    ids=repr,
)
def test_step_doubling_gives_any_scheme_an_error_estimate(solver):
    constrained = isinstance(solver, ide.Projected)
    constraint = ide.Sphere() if constrained else ide.Free()
    equation = make_equation(intervals=2, constraint=constraint)
    u0 = constraint.project(random_state())
    exact = ide.solve(equation, u0, solver=solver, steps_per_interval=2048).u1
    errors = [
        largest(
            ide.solve(
                equation,
                u0,
                solver=diffrax.HalfSolver(solver),
                stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
                max_steps=4096,
            ).u1,
            exact,
        )
        for tolerance in (1e-2, 1e-4)
    ]
    # Errors of a first-order scheme add up over as many steps as the root of the tolerance.
    assert errors[1] < errors[0] / 5


def test_adaptive_intervals_start_with_the_step_of_the_last():
    """Without it the solve would begin each interval with a step of a layer and reject it."""
    equation = make_equation(ide.Tied, intervals=8)
    solution = ide.solve(
        equation, random_state(), solver=diffrax.Tsit5(), stepsize_controller=TIGHT
    )
    assert solution.stats["rejected"] < 8


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
    [{"steps_per_interval": 32}, {"stepsize_controller": TIGHT}],
    ids=["fixed", "adaptive"],
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
    assert solution.ts.tolist() == [0.0, 0.3, 1.0, 1.7, 2.0]
    assert largest(solution.us[0], u0) < 1e-14
    assert largest(solution.us[-1], solution.u1) < 1e-12
    for t, u in zip(solution.ts[1:-1], solution.us[1:-1], strict=True):
        assert largest(solution.evaluate(t), u) < 1e-14
        exact = diffrax.diffeqsolve(
            equation.terms,
            diffrax.Tsit5(),
            0.0,
            t,
            0.01,
            u0,
            stepsize_controller=diffrax.ClipStepSizeController(TIGHT, jump_ts=[1.0]),
        ).ys[0]
        assert largest(u, exact) < 1e-5


def test_states_of_all_layers():
    equation = make_equation()
    u0 = random_state()
    solution = ide.solve(
        equation, u0, solver=ide.LieTrotter(), saveat=diffrax.SaveAt(ts=equation.knots)
    )
    u = u0
    assert (solution.us[0] == u0).all()
    assert (solution.us[3] == solution.u1).all()
    for layer in range(3):
        assert largest(solution.us[layer], u) < 1e-13
        for operator in equation.control(float(layer)):
            u = u + operator(u, equation.domain)
    assert largest(solution.us[3], u) < 1e-13


def test_float32_states_stay_float32():
    equation = jax.tree.map(lambda x: x.astype(jnp.float32), make_equation())
    u0 = random_state().astype(jnp.float32)
    for options in ({}, {"stepsize_controller": diffrax.PIDController(1e-3, 1e-3)}):
        solution = ide.solve(equation, u0, solver=diffrax.Heun(), **options)
        assert solution.u1.dtype == jnp.float32


@pytest.mark.parametrize(
    ("solver", "first", "following"),
    [
        (diffrax.Euler(), 1, 1),
        (diffrax.Heun(), 2, 2),
        (diffrax.Tsit5(), 7, 6),
        (ide.RK4(), 4, 4),
        (ide.LieTrotter(), 1, 1),
        (ide.Strang(diffrax.Euler()), 1.5, 1.5),
        (ide.Strang(diffrax.Heun()), 3, 3),
        (ide.Strang(ide.Projected(diffrax.Heun())), 3, 3),
        (diffrax.HalfSolver(ide.LieTrotter()), 3, 3),
        (ide.LieStrang(diffrax.Heun()), 5, 5),
        (ide.ParallelSplitting(), 1, 1),
        # Seven sub-steps of four stages on two operators.
        (ide.yoshida4(), 14, 14),
        (ide.Residual(ide.RK4()), 4, 4),
        (ide.AdamsBashforth(3), 2, 1),
        (ide.Leapfrog(), 1, 1),
        (ide.Nesterov(), 1, 1),
    ],
    ids=repr,
)
def test_field_evaluations(solver, first, following):
    block = EQUATION.control(0.0)
    assert count_evaluations(solver, block, WIDTH)[:2] == (first, following)


def test_evaluations_of_implicit_schemes_are_counted_as_they_are_made():
    assert count_evaluations(ide.ImplicitMidpoint(), EQUATION.control(0.0), WIDTH) is None
    fewer, more = (
        ide.solve(EQUATION, U0, solver=ide.ImplicitMidpoint(tolerance)).stats
        for tolerance in (1e-2, 1e-10)
    )
    # At least the guess, a residual and a product with the Jacobian in each step.
    assert 9 <= float(fewer["field_evaluations"]) < float(more["field_evaluations"])


def test_field_evaluations_of_a_march():
    equation = make_equation()
    u0 = random_state()
    count = ide.solve(equation, u0, solver=diffrax.Tsit5(), steps_per_interval=2)
    # Seven stages where the field has just jumped, six after that.
    assert count.stats["field_evaluations"] == 3 * (7 + 6)
    assert count.stats["steps"] == count.stats["accepted"] == 6
    smooth = make_equation(ide.PiecewiseLinear)
    count = ide.solve(smooth, u0, solver=diffrax.Tsit5(), steps_per_interval=2)
    assert count.stats["field_evaluations"] == 7 + 5 * 6


class Exploding(ide.AbstractOperator):
    """u_t = c u², which leaves the real line after a depth of 1/(c u0)."""

    rate: jax.Array

    def __call__(self, u, domain):
        return self.rate * u * u


def exploding(rates):
    domain = ide.TokenDomain.uniform(TOKENS)
    control = ide.PiecewiseConstant((Exploding(jnp.array(rates)),))
    return ide.Equation(control, ide.Free(), domain)


def test_an_operator_of_a_user():
    """1/u falls linearly: u(t) = 1 / (1/u0 - t c)."""
    equation = exploding([0.1, 0.2])
    u1 = ide.solve(equation, jnp.ones((TOKENS, 2)), solver=ide.RK4(), steps_per_interval=16).u1
    assert largest(u1, 1 / 0.7) < 1e-6


def test_a_failed_march_says_which_and_where():
    equation = exploding([0.1, 1e200, 1.0])
    with pytest.raises(Exception, match="between depths 1 and 2 of 3 with nonfinite"):
        ide.solve(equation, jnp.ones((TOKENS, 2)), solver=ide.RK4())
    solution = ide.solve(equation, jnp.ones((TOKENS, 2)), solver=ide.RK4(), throw=False)
    assert solution.result == diffrax.RESULTS.nonfinite
    assert float(solution.failed_at) == 2.0
    assert not solution.succeeded


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


def test_padding_and_weights_come_with_the_domain():
    equation = make_equation()
    mask = jnp.arange(TOKENS)[None, :] < jnp.array([[3], [6]])
    padded = ide.Equation(equation.control, ide.Free(), equation.domain.padded(mask))
    u0 = random_state(2)
    u1 = ide.solve(padded, u0, solver=ide.LieTrotter()).u1
    short = ide.Equation(equation.control, ide.Free(), ide.TokenDomain.uniform(3))
    alone = ide.solve(short, u0[0, :3], solver=ide.LieTrotter()).u1
    assert largest(u1[0, :3], alone) < 1e-13


EQUATION = make_equation()
U0 = random_state()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"u0": U0[:4]}, r"u0 has shape \(4, 16\).*6 tokens"),
        ({"u0": U0[0]}, r"u0 has shape \(16,\)"),
        ({"u0": U0[:, :8]}, "acts on 16 features"),
        ({"u0": jnp.zeros((TOKENS, WIDTH), int)}, "floating point"),
        ({"steps_per_interval": 0}, "does not divide an interval"),
        ({"steps_per_interval": 1.5}, "steps_per_interval=1.5 does not divide"),
        ({"stepsize_controller": TIGHT}, r"LieTrotter has no error estimate.*HalfSolver"),
        (
            {"solver": diffrax.KenCarp3()},
            "KenCarp3 leaves the tolerances of its root finder open",
        ),
        (
            {"solver": ide.RK4(), "stepsize_controller": TIGHT},
            "RK4 has no error estimate",
        ),
        (
            {"solver": diffrax.Tsit5(), "stepsize_controller": TIGHT, "steps_per_interval": 2},
            "drop steps_per_interval",
        ),
        (
            {"solver": diffrax.Tsit5(), "stepsize_controller": diffrax.ConstantStepSize()},
            "steps_per_interval and drop the controller",
        ),
        ({"gradient": diffrax.BacksolveAdjoint()}, "wrong for layered weights"),
        (
            {
                "solver": diffrax.Tsit5(),
                "stepsize_controller": TIGHT,
                "gradient": diffrax.BacksolveAdjoint(),
            },
            "wrong for layered weights",
        ),
        ({"gradient": diffrax.DirectAdjoint()}, "fixed steps march by a scan"),
        ({"saveat": diffrax.SaveAt(ts=[4.0])}, r"must lie in \[0, 3\]"),
        ({"saveat": diffrax.SaveAt(steps=True)}, "output that solve does not give"),
    ],
)
def test_input_that_does_not_fit(options, message, unchecked):
    options = {"u0": U0, "solver": ide.LieTrotter(), **options}
    with pytest.raises(ide.InputError, match=message):
        ide.solve(EQUATION, **options)


def test_dense_output_has_to_be_asked_for():
    with pytest.raises(ide.InputError, match=r"SaveAt\(dense=True\)"):
        ide.solve(EQUATION, U0, solver=ide.LieTrotter()).evaluate(0.5)


def test_saveat_depths_must_be_known():
    @jax.jit
    def solve(t):
        saveat = diffrax.SaveAt(ts=t[None])
        return ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=saveat, throw=False).us

    with pytest.raises(ide.InputError, match="known when the solve is compiled"):
        solve(jnp.array(0.5))


def test_an_operator_of_another_shape(unchecked):
    class Wrong(ide.AbstractOperator):
        weight: jax.Array

        def __call__(self, u, domain):
            return u[..., :2]

    equation = ide.Equation(
        ide.Tied((Wrong(jnp.ones(1)),), 1), ide.Free(), ide.TokenDomain.uniform(TOKENS)
    )
    with pytest.raises(
        ide.InputError, match=r"Wrong maps a state of shape \(6, 16\) to \(6, 2\)"
    ):
        ide.solve(equation, U0, solver=diffrax.Euler())
