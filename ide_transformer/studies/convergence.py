"""Orders of convergence: every scheme, the equations on which schemes are measured, and their
limits as h → 0, each found by an eighth-order method."""

import functools as ft
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import equation as eq, solvers
from ..errors import InputError
from ..figures import Curve, plot_panels
from ..integration import Direct, Solution, solve
from ..solvers import AbstractMomentum, Projected, Residual, Velocity
from ..training import SchemeConfig, did_you_mean, validated
from ..training.build import SchemeSizes, build_solver


FEATURES = 8
_TOKENS, _INTERVALS = 4, 3

# Steps in an interval, by order: few enough that rounding stays below the error.
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
# With more schemes than these, colours tell orders.
_FEW = 8

CONTROLS: dict[str, Any] = {
    "chebyshev": eq.Chebyshev,
    "fourier": eq.Fourier,
    "hypernetwork": eq.Hypernetwork,
    "piecewise_linear": eq.PiecewiseLinear,
    "piecewise_constant": eq.PiecewiseConstant,
}
CONSTRAINTS: dict[str, eq.AbstractConstraint] = {
    "free": eq.Free(),
    "sphere": eq.Sphere(),
    "rms_sphere": eq.RMSSphere(),
}


class Case(NamedTuple):
    """The names of an equation: its operators (`transformer`, `damped` or `paper`), its control
    and its constraint."""

    block: str
    control: str
    constraint: str


@ft.cache
def problem(case: Case) -> tuple[eq.Equation, Array]:
    """The equation, and its initial state on the constraint."""
    constraint = CONSTRAINTS[case.constraint]
    block = _block(case.block, case.constraint != "free")
    theta = CONTROLS[case.control].build(block, _INTERVALS, key=jax.random.key(1))
    equation = eq.Equation(theta, constraint, eq.TokenDomain.uniform(_TOKENS))
    u0 = jax.random.normal(jax.random.key(2), (_TOKENS, FEATURES))
    return equation, constraint.project(u0)


def run(case: Case, solver: diffrax.AbstractSolver, steps: int) -> Solution:
    """The solution with so many steps in each interval."""
    equation, u0 = problem(case)
    return solve(equation, u0, solver=solver, steps_per_interval=steps, gradient=Direct())


def _block(name: str, constrained: bool) -> Callable:
    """A maker of blocks. On a constraint the operators do not normalise the state."""
    norm = eq.Free() if constrained else eq.LayerNorm(eps=1e-5)

    def make(key):
        keys = jax.random.split(key, 4)
        attention = eq.Attention(FEATURES, 2, key=keys[0], normalization=norm, std=0.25)
        if name == "paper":
            first, second = (
                eq.FeatureIntegral(FEATURES, key=k, normalization=norm, std=0.2)
                for k in keys[1:3]
            )
            return attention, first, second
        feed_forward = eq.FeedForward(FEATURES, key=keys[1], normalization=norm, std=0.2)
        if name == "damped":
            return attention, feed_forward, eq.Damping(0.5 + jax.random.uniform(keys[3], (8,)))
        return attention, feed_forward

    return make


def equation_limit(solver: Any, case: Case) -> Array:
    """The solution of the equation itself."""
    return _tight(diffrax.Dopri8(), case)


def block_limit(solver: Residual | Velocity, case: Case) -> Array:
    """The solution of the equation whose field is made of the blocks of a scheme."""
    return _tight(eqx.tree_at(lambda s: s.solver, solver, diffrax.Dopri8()), case)


def momentum_limit(solver: AbstractMomentum, case: Case) -> Array:
    """The limit of a scheme with momentum,

        u_t = k v,   v_t = -k r(t) v + g(t) Σ_i A_i(u),

    k the number of operators, with r and g read off its coefficients over a tiny step. On a
    constraint u moves with the tangential part of k v.
    """
    equation, u0 = problem(case)
    number, tiny = equation.num_operators, 1e-7
    state = (u0, jnp.zeros_like(u0))
    for index in range(equation.control.num_intervals):
        terms = equation.terms_of(index)
        (field, *_), raw = eq.operator_fields(terms), eq.without_constraint(terms)

        def rates(t, state, args, field=field, raw=raw):
            u, v = state
            kick = solver.kick(0, t, t + tiny)
            friction, gain = (1 - kick.damping) / tiny, kick.strength / tiny
            force = raw.vf_prod(t, u, None, raw.contr(0.0, 1.0))
            drift = field.constraint(t).tangent(u, number * v)
            return drift, gain * force - number * friction * v

        term, t0, h = diffrax.ODETerm(rates), float(index), 1 / 48
        ends = diffrax.diffeqsolve(term, diffrax.Dopri8(), t0, t0 + 1, h, state).ys
        state = jax.tree.map(lambda x: x[0], ends)
    return state[0]


@ft.cache
def _tight(solver: diffrax.AbstractSolver, case: Case) -> Array:
    return run(case, Projected(solver), 48).u1


class Entry(NamedTuple):
    """A scheme and the problem that it is measured on.

    - `free`, `sphere`: the scheme on a free state and on a constraint; `None` where it does not
      apply.
    - `block`: name of the operators; see `Case`.
    - `limit`: from `free` and the case to the state at T to which the scheme converges.
    """

    free: diffrax.AbstractSolver | None
    sphere: diffrax.AbstractSolver | None = None
    block: str = "transformer"
    limit: Callable[..., Array] = equation_limit

    def scheme(self, constraint: str) -> diffrax.AbstractSolver | None:
        """The scheme on a constraint; `None` where it does not apply."""
        return self.free if constraint == "free" else self.sphere


def _explicit(solver: diffrax.AbstractSolver, **options: Any) -> Entry:
    return Entry(solver, solvers.projected(solver), **options)


def _gated() -> solvers.GatedRK2:
    """A gate other than ½, which would be of second order."""
    gate = solvers.GatedRK2(FEATURES)
    weight = 0.3 * jax.random.normal(jax.random.key(11), gate.weight.shape)
    return eqx.tree_at(lambda g: (g.weight, g.bias), gate, (weight, jnp.asarray(0.5)))


# Schemes that are measured on a free state, and projected on a constraint, by the names that
# configurations know; and those of a free state alone.
_EXPLICIT = (
    *("euler", "heun", "midpoint", "ralston", "bosh3", "rk4", "dopri5", "tsit5", "dopri8"),
    *("half_solver(lie_trotter(euler))", "lie_trotter(euler)", "lie_trotter(heun)"),
    *("strang(euler)", "strang(heun)", "strang(rk4)", "lie_strang(heun)"),
    *("parallel_splitting(euler)", "parallel_splitting(heun)", "yoshida4(rk4)", "suzuki4(rk4)"),
    *("adams_bashforth(2)", "adams_bashforth(3)", "leapfrog"),
    *("algebraically_reversible(strang(heun))", "algebraically_reversible(rk4)"),
)
_FREE = (
    *("reversible_heun", "implicit_euler", "implicit_midpoint"),
    *("kvaerno3", "kvaerno4", "kvaerno5"),
)


def _named(name: str) -> diffrax.AbstractSolver:
    return build_solver(name, validated(SchemeConfig, name, name), SchemeSizes(FEATURES, 1, 2))


@ft.cache
def schemes() -> dict[str, Entry]:
    """Every scheme, by the name under which it is reported."""
    nesterov = solvers.Nesterov(momentum=0.5, lookahead=0.5)
    heavy_ball = solvers.HeavyBall(momentum=0.5)
    presymplectic = solvers.PresymplecticEuler(logarithmic=1.0, linear=0.1)
    consistent = solvers.ConsistentPaperSplitting()
    blocks = ("residual(euler)", "residual(rk4)", "velocity(euler)")
    return {
        **{name: _explicit(_named(name)) for name in _EXPLICIT},
        **{name: Entry(_named(name)) for name in _FREE},
        **{name: Entry(_named(name), limit=block_limit) for name in blocks},
        "residual(gated_rk2)": Entry(solvers.Residual(_gated()), limit=block_limit),
        "lie_trotter(euler), exact damping": Entry(solvers.LieTrotter(), block="damped"),
        "strang(heun), exact damping": Entry(solvers.Strang(), block="damped"),
        "exponential_euler": _explicit(solvers.ExponentialEuler(), block="damped"),
        "etdab2": _explicit(solvers.ETDAB2(), block="damped"),
        "paper_splitting": Entry(None, solvers.PaperSplitting(), block="paper"),
        "consistent_paper_splitting": Entry(None, consistent, block="paper"),
        "nesterov": _explicit(nesterov, limit=momentum_limit),
        "heavy_ball": _explicit(heavy_ball, limit=momentum_limit),
        "presymplectic_euler": _explicit(presymplectic, limit=momentum_limit),
    }


def applies(scheme: str, constraint: str) -> bool:
    """Whether a scheme can be measured on a constraint."""
    return find_scheme(scheme)[1].scheme(constraint) is not None


def find_scheme(scheme: str) -> tuple[str, Entry]:
    """The name and the entry of a scheme; `strang` is `strang(heun)`, as in configurations."""
    known = schemes()
    try:
        name = scheme if scheme in known else str(validated(SchemeConfig, scheme, "--scheme"))
    except InputError:
        name = scheme
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(
            f"--scheme {name}: it is not measured.{hint} Known: {'; '.join(known)}."
        )
    return name, known[name]


class MeasuredOrder(NamedTuple):
    """The order of convergence of one scheme on one problem, with its errors.

    - `expected_order`: by theory; 0 for a scheme that does not converge.
    - `observed_order`: the slope of log error over log h in the asymptotic range.
    - `error_constant`: C of `error = C h^order` at the end of that range.
    - `splitting_error`, `sub_step_error`: at the most steps, the error of the splitting with
      exact sub-steps (that of the commutators), and how much the sub-solver adds; `None`
      for schemes that do not split.
    - `constraint_residual`: the largest over tokens at T.
    - `steps`, `errors`: steps in an interval and the largest error over tokens and features.
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


def measure_order(scheme: str, control: str, constraint: str) -> MeasuredOrder:
    """The order of convergence of a scheme of `schemes()`, with a control of `CONTROLS`, on one
    of `CONSTRAINTS` to which it `applies`, in the precision of JAX (use float64)."""
    scheme, entry = find_scheme(scheme)
    solver = entry.scheme(constraint)
    assert solver is not None
    case = Case(entry.block, control, constraint)
    exact = entry.limit(entry.free, case)
    expected = solver.order(problem(case)[0].terms) or 0
    counts = list(_STEPS[expected])
    solutions = [run(case, solver, steps) for steps in counts]
    errors = [_largest(solution.u1, exact) for solution in solutions]
    used = [i for i, error in enumerate(errors) if error > _ROUNDING][-3:]
    h, log_errors = 1 / np.array(counts)[used], np.log(np.array(errors)[used])
    observed = float(np.polyfit(np.log(h), log_errors, 1)[0])
    ideal = _exact_sub_steps(solver, case, counts[-1])
    actual = solutions[-1].u1
    return MeasuredOrder(
        scheme=scheme,
        control=control,
        constraint=constraint,
        expected_order=expected,
        observed_order=observed,
        error_constant=errors[used[-1]] / h[-1] ** expected,
        splitting_error=None if ideal is None else _largest(ideal, exact),
        sub_step_error=None if ideal is None else _largest(actual, ideal),
        constraint_residual=float(solutions[-1].stats["constraint_residual"]),
        steps=counts,
        errors=errors,
    )


def plot_orders(path: Path, rows: Sequence[MeasuredOrder]) -> None:
    """Error against step size on logarithmic axes: a panel for each control and constraint, a
    line for each scheme, coloured by scheme or, where they are many, by expected order."""
    few = len({row.scheme for row in rows}) <= _FEW
    panels: dict[str, list[Curve]] = {}
    for row in sorted(rows, key=lambda row: row.expected_order):
        label = row.scheme if few else f"order {row.expected_order}"
        curve = Curve(label, 1 / np.array(row.steps)[::-1], row.errors[::-1])
        panels.setdefault(f"{row.control}, {row.constraint}", []).append(curve)
    labels = dict(x="step size h (layers)", y="largest error at T")
    plot_panels(path, panels, **labels, marker="o", log="xy")


def _exact_sub_steps(solver: diffrax.AbstractSolver, case: Case, steps: int) -> Array | None:
    """The state at T of a splitting with exact sub-steps, if the scheme splits."""
    if solvers.splitting_of(solver) is None:
        return None
    return run(case, solvers.with_sub_solver(solver, Projected(diffrax.Dopri8())), steps).u1


def _largest(u: Array, exact: Array) -> float:
    return float(jnp.max(jnp.abs(u - exact)))
