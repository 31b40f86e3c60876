"""Measures the order of convergence of schemes, by their errors against the limit h → 0. A
method of order eight solves the limit."""

import functools as ft
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

from .. import equation as eq, solvers
from ..errors import InputError
from ..integration.march import Steps
from ..solvers import Residual, Velocity
from ..training.configuration.key import Key
from ..training.configuration.names import find
from ..training.configuration.reader import resolve_part


FEATURES = 8

# Steps in an interval, by order: few enough that errors stay above rounding.
_STEPS = {
    0: (16, 32, 64),
    1: (32, 64, 128),
    2: (16, 32, 64),
    3: (32, 64, 128),
    4: (32, 48, 64),
    5: (16, 24, 32),
    8: (3, 4, 6, 8, 12),
}
_ROUNDING = 1e-13

# By their names in configurations.
CONTROLS = "chebyshev", "fourier", "hypernetwork", "piecewise_linear", "piecewise_constant"
CONSTRAINTS = "free", "sphere", "rms_sphere"


class Case(NamedTuple):
    """The names of the operators (`transformer`, `damped` or `paper`), control and constraint
    of an equation."""

    block: str
    control: str
    constraint: str


@ft.cache
def problem(case: Case) -> tuple[eq.Equation, Array]:
    """The equation of a case, and its initial state on the constraint."""
    constraint = find("constraint", case.constraint, eq.AbstractConstraint)()
    control = find("control", case.control, eq.AbstractControl)
    norm = eq.LayerNorm(eps=1e-5) if case.constraint == "free" else eq.Free()

    def block(key):
        keys = jax.random.split(key, 4)
        attention = eq.Attention(FEATURES, 2, key=keys[0], normalization=norm, std=0.25)
        if case.block == "paper":
            integrals = (
                eq.FeatureIntegral(FEATURES, key=k, normalization=norm, std=0.2)
                for k in keys[1:3]
            )
            return attention, *integrals
        feed_forward = eq.FeedForward(FEATURES, key=keys[1], normalization=norm, std=0.2)
        if case.block == "damped":
            return attention, feed_forward, eq.Damping(0.5 + jax.random.uniform(keys[3], (8,)))
        return attention, feed_forward

    theta = control.build(block, 3, key=jax.random.key(1))
    equation = eq.Equation(theta, constraint, eq.TokenDomain.uniform(4))
    u0 = jax.random.normal(jax.random.key(2), (4, FEATURES))
    return equation, constraint.project(u0)


@eqx.filter_jit
def march(
    equation: eq.Equation, u0: Array, solver: diffrax.AbstractSolver, steps: Int[Array, ""]
) -> Array:
    """The state at T after equal steps in each interval. Unlike `solve`, it is compiled once
    for all numbers of steps."""
    scheme = solvers.prepare_solver(solver, equation.constraint, unroll=True)
    plan = Steps(equation, solver, scheme, 1, None, u0.dtype)
    length = equation.control.interval_length

    def interval(carry, inputs):
        index, weights = inputs
        terms = equation.interval_terms(index, weights)

        def step(k, carry):
            t0 = length * (index + k / steps)
            t1 = length * (index + (k + 1) / steps)
            jump = (k == 0) & (not equation.continuous)
            u, state = carry
            field = solvers.StepField(terms, t0, t1, None)
            result = field.step(plan.solver, u, state, jump)
            return result.y1, result.solver_state

        return lax.fori_loop(0, steps, step, carry), None

    terms = equation.terms_of(0)
    start = plan.solver.init(terms, 0 / steps, length / steps, u0, None)
    return lax.scan(interval, (u0, start), (plan.indices, equation.intervals()))[0][0]


class Refinement(NamedTuple):
    """The errors of a scheme with more and more steps; for the fields see `MeasuredOrder`. `u1`
    is the state at T with the most steps."""

    steps: list[int]
    errors: list[float]
    order: float
    error_constant: float
    u1: Array


def refine(
    equation: eq.Equation,
    u0: Array,
    solver: diffrax.AbstractSolver,
    exact: Array,
    expected_order: int,
) -> Refinement:
    """Measures the errors of a scheme against `exact`, its limit at T, for numbers of steps
    that show its order in float64."""
    counts = list(_STEPS[max(order for order in _STEPS if order <= expected_order)])
    ends = [march(equation, u0, solver, jnp.asarray(steps)) for steps in counts]
    errors = [largest_difference(u1, exact) for u1 in ends]
    asymptotic = [i for i, error in enumerate(errors) if not error <= _ROUNDING][-3:]
    if len(asymptotic) < 2:
        name = type(solver).__name__
        raise InputError(f"{name} has no order to measure: its errors are rounding.")
    h = 1 / np.array(counts)[asymptotic]
    slope = float(np.polyfit(np.log(h), np.log(np.array(errors)[asymptotic]), 1)[0])
    constant = errors[asymptotic[-1]] / h[-1] ** expected_order
    return Refinement(counts, errors, slope, constant, ends[-1])


def largest_difference(u: Array, v: Array) -> float:
    return float(jnp.max(jnp.abs(u - v)))


def limit(solver: diffrax.AbstractSolver, equation: eq.Equation, u0: Array) -> Array:
    """The state at T for the limit h → 0 of a scheme."""
    return march(equation, u0, scheme_limit(solver) or diffrax.Dopri8(), jnp.asarray(48))


def scheme_limit(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver | None:
    """`AbstractScheme.limit`; `None` for a scheme of diffrax."""
    # Not `isinstance`: `HalfSolver` looks like an instance of the scheme that it wraps.
    return getattr(solver, "limit", lambda: None)()


class Entry(NamedTuple):
    """A scheme, and the problems to measure it on.

    - `free`, `sphere`: the scheme on a free state and on a constraint; `None` if it does not
      apply there.
    - `block`: the operators, see `Case`.
    """

    free: diffrax.AbstractSolver | None
    sphere: diffrax.AbstractSolver | None = None
    block: str = "transformer"

    def scheme(self, constraint: str) -> diffrax.AbstractSolver | None:
        return self.free if constraint == "free" else self.sphere


def _explicit(solver: diffrax.AbstractSolver, **options: Any) -> Entry:
    return Entry(solver, solvers.projected(solver), **options)


# Schemes by their names in configurations: measured on a free state and, projected, on a
# constraint;
_EXPLICIT = (
    *("euler", "heun", "midpoint", "ralston", "bosh3", "rk4", "dopri5", "tsit5", "dopri8"),
    *("half_solver(lie_trotter(euler))", "lie_trotter(euler)", "lie_trotter(heun)"),
    *("strang(euler)", "strang(heun)", "strang(rk4)", "lie_strang(heun)"),
    *("parallel_splitting(euler)", "parallel_splitting(heun)", "yoshida4(rk4)", "suzuki4(rk4)"),
    *("adams_bashforth(2)", "adams_bashforth(3)", "leapfrog"),
    *("algebraically_reversible(strang(heun))", "algebraically_reversible(rk4)"),
)
# measured on a free state alone.
_FREE = (
    *("reversible_heun", "implicit_euler", "implicit_midpoint"),
    *("kvaerno3", "kvaerno4", "kvaerno5"),
    *("residual(euler)", "residual(rk4)", "velocity(euler)"),
)


def _read_scheme(name: str) -> tuple[str, diffrax.AbstractSolver]:
    """A scheme by its name in configurations, and the name with the scheme inside it."""
    sizes = {"features": FEATURES, "num_steps": 1, "operators": 2}
    spec = resolve_part(diffrax.AbstractSolver, name, Key("--scheme"))
    return str(spec), spec.make({diffrax.AbstractSolver: sizes})


@ft.cache
def schemes() -> dict[str, Entry]:
    """All schemes to measure, by name."""
    consistent = solvers.ConsistentPaperSplitting()
    return {
        **{name: _explicit(_read_scheme(name)[1]) for name in _EXPLICIT},
        **{name: Entry(_read_scheme(name)[1]) for name in _FREE},
        "lie_trotter(euler), exact damping": Entry(solvers.LieTrotter(), block="damped"),
        "strang(heun), exact damping": Entry(solvers.Strang(), block="damped"),
        "exponential_euler": _explicit(solvers.ExponentialEuler(), block="damped"),
        "etdab2": _explicit(solvers.ETDAB2(), block="damped"),
        "etdrk4": _explicit(solvers.ETDRK4(), block="damped"),
        "paper_splitting": Entry(None, solvers.PaperSplitting(), block="paper"),
        "consistent_paper_splitting": Entry(None, consistent, block="paper"),
    }


def find_scheme(scheme: str | diffrax.AbstractSolver) -> tuple[str, Entry]:
    """The name and the entry of a scheme. A name is as in configurations, such as `strang` for
    `strang(heun)`, or `package.module:Class` for your own scheme."""
    entries = schemes()
    if isinstance(scheme, str):
        if scheme in entries:
            return scheme, entries[scheme]
        name, solver = _read_scheme(scheme)
    else:
        solver = scheme
        name = eq.spell(scheme)
    if name in entries:
        return name, entries[name]
    steps_blocks = isinstance(solver, Residual | Velocity)
    return name, Entry(solver) if steps_blocks else _explicit(solver)


class MeasuredOrder(NamedTuple):
    """The order of convergence of a scheme on a problem.

    - `expected_order`: the order in theory; 0 for a scheme that does not converge.
    - `observed_order`: the slope of log error over log h in the asymptotic range.
    - `error_constant`: C of `error = C h^expected_order` with the most steps.
    - `splitting_error`: the error of exact sub-steps with the most steps.
    - `sub_step_error`: the error that the sub-solver adds. Both are `None` for schemes that do
      not split.
    - `constraint_residual`: the largest distance of a token from its constraint at T.
    - `steps`, `errors`: steps in an interval, and the largest error over tokens and features.
    """

    scheme: str
    control: str
    constraint: str
    expected_order: int
    observed_order: float
    error_constant: float
    splitting_error: float | None
    sub_step_error: float | None
    constraint_residual: float
    steps: list[int]
    errors: list[float]


def measure_order(
    scheme: str | diffrax.AbstractSolver,
    control: str = "chebyshev",
    constraint: str = "free",
    *,
    equation: eq.Equation | None = None,
    u0: Array | None = None,
) -> MeasuredOrder:
    """Measures the order of convergence of a scheme on attention and a feed-forward with random
    weights, or on your own `equation`. Switch JAX to float64 first.

    **Arguments:**

    - `scheme`: an object, or a name for the command `ide-transformer convergence`.
    - `control`: chebyshev, fourier, hypernetwork, piecewise_linear or piecewise_constant.
    - `constraint`: free, sphere or rms_sphere. On a sphere the scheme is `projected`.
    - `equation`, `u0`: your own, instead of `control` and `constraint`. u0 is first projected
      on the constraint.

    **Raises:** `InputError` for an unknown scheme, and if it does not apply to the constraint.
    """
    name, entry = find_scheme(scheme)
    if (equation is None) != (u0 is None):
        raise InputError("measure_order: pass both equation and u0, or neither.")
    if equation is None or u0 is None:
        equation, u0 = problem(Case(entry.block, control, constraint))
    else:
        start = eq.operator_fields(equation.terms)[-1].constraint(0.0)
        control = type(equation.control).__name__
        constraint = "free" if isinstance(start, eq.Free) else type(start).__name__
        u0 = start.project(jnp.asarray(u0))
    solver = entry.scheme(constraint)
    if solver is None:
        raise InputError(f"constraint={constraint}: {name} cannot be measured on it.")
    end = eq.operator_fields(equation.terms)[-1].constraint(equation.horizon)
    exact = limit(entry.free or solver, equation, u0)
    expected = solver.order(equation.terms) or 0
    refinement = refine(equation, u0, solver, exact, expected)
    splitting_error = sub_step_error = None
    if solvers.splitting_of(solver) is not None:
        exact_splitting = solvers.with_sub_solver(solver, solvers.Projected(diffrax.Dopri8()))
        u1 = march(equation, u0, exact_splitting, jnp.asarray(refinement.steps[-1]))
        splitting_error = largest_difference(u1, exact)
        sub_step_error = largest_difference(refinement.u1, u1)
    return MeasuredOrder(
        scheme=name,
        control=control,
        constraint=constraint,
        expected_order=expected,
        observed_order=refinement.order,
        error_constant=refinement.error_constant,
        splitting_error=splitting_error,
        sub_step_error=sub_step_error,
        constraint_residual=float(jnp.max(end.residual(refinement.u1))),
        steps=refinement.steps,
        errors=refinement.errors,
    )


def plot_orders(path: Path, rows: Sequence[MeasuredOrder]) -> None:
    """Draws error against step size, with a panel for each control and constraint and a line
    for each scheme. With many schemes, colours show the expected order."""
    from ..figures import Curve, plot_panels

    has_few_schemes = len({row.scheme for row in rows}) <= 8
    panels: dict[str, list[Curve]] = {}
    for row in sorted(rows, key=lambda row: row.expected_order):
        label = row.scheme if has_few_schemes else f"order {row.expected_order}"
        curve = Curve(label, 1 / np.array(row.steps)[::-1], row.errors[::-1])
        panels.setdefault(f"{row.control}, {row.constraint}", []).append(curve)
    labels = dict(title="Orders", x="step size h (layers)", y="largest error at T")
    plot_panels(path, panels, **labels, marker="o", log="xy")
