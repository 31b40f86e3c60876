"""Orders of convergence, measured: each scheme on a problem with a known solution."""

import functools as ft
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Attention,
    Chebyshev,
    Damping,
    Equation,
    FeatureIntegral,
    FeedForward,
    Fourier,
    Free,
    Hypernetwork,
    LayerNorm,
    PiecewiseConstant,
    PiecewiseLinear,
    RMSSphere,
    Sphere,
    TokenDomain,
    operator_fields,
    without_constraint,
)
from ..errors import InputError
from ..integration import Direct, solve
from ..solvers import (
    ETDAB2,
    RK4,
    AbstractMomentum,
    AbstractSplit,
    AdamsBashforth,
    ConsistentPaperSplitting,
    ExponentialEuler,
    GatedRK2,
    HeavyBall,
    ImplicitEuler,
    ImplicitMidpoint,
    Leapfrog,
    LieStrang,
    LieTrotter,
    Nesterov,
    PaperSplitting,
    ParallelSplitting,
    PresymplecticEuler,
    Projected,
    Residual,
    Strang,
    Velocity,
    projected,
    suzuki4,
    yoshida4,
)


_FEATURES, _TOKENS, _INTERVALS = 8, 4, 3

CONTROLS: dict[str, type] = {
    "chebyshev": Chebyshev,
    "fourier": Fourier,
    "hypernetwork": Hypernetwork,
    "piecewise_linear": PiecewiseLinear,
    "piecewise_constant": PiecewiseConstant,
}
CONSTRAINTS: dict[str, AbstractConstraint] = {
    "free": Free(),
    "sphere": Sphere(),
    "rms_sphere": RMSSphere(),
}


class Entry(NamedTuple):
    """A scheme and the problem that it is measured on.

    - `solver`: the scheme on a free state.
    - `block`: name of the operators, one of those of `_block`.
    - `on_sphere`: the scheme on a constraint; `None` where it does not apply.
    - `on_free`: whether it applies without a constraint.
    """

    solver: diffrax.AbstractSolver
    block: str = "transformer"
    on_sphere: diffrax.AbstractSolver | None = None
    on_free: bool = True


def _explicit(solver: diffrax.AbstractSolver, block: str = "transformer") -> Entry:
    return Entry(solver, block, on_sphere=projected(solver))


def _on_sphere_only(solver: diffrax.AbstractSolver) -> Entry:
    return Entry(solver, "paper", on_sphere=solver, on_free=False)


def _gated() -> GatedRK2:
    """With a gate that is not ½, which would be of second order."""
    gate = GatedRK2(_FEATURES)
    weight = 0.3 * jax.random.normal(jax.random.key(11), gate.weight.shape)
    return eqx.tree_at(lambda g: (g.weight, g.bias), gate, (weight, jnp.asarray(0.5)))


@ft.cache
def schemes() -> dict[str, Entry]:
    """Every scheme, by the name under which it is reported."""
    return {
        "euler": _explicit(diffrax.Euler()),
        "heun": _explicit(diffrax.Heun()),
        "midpoint": _explicit(diffrax.Midpoint()),
        "ralston": _explicit(diffrax.Ralston()),
        "bosh3": _explicit(diffrax.Bosh3()),
        "rk4": _explicit(RK4()),
        "dopri5": _explicit(diffrax.Dopri5()),
        "tsit5": _explicit(diffrax.Tsit5()),
        "dopri8": _explicit(diffrax.Dopri8()),
        "reversible_heun": Entry(diffrax.ReversibleHeun()),
        "half_solver(lie_trotter)": _explicit(diffrax.HalfSolver(LieTrotter())),
        "lie_trotter(euler)": _explicit(LieTrotter(diffrax.Euler())),
        "lie_trotter(heun)": _explicit(LieTrotter(diffrax.Heun())),
        "lie_trotter(euler, exact damping)": Entry(LieTrotter(), "damped"),
        "strang(euler)": _explicit(Strang(diffrax.Euler())),
        "strang(heun)": _explicit(Strang(diffrax.Heun())),
        "strang(rk4)": _explicit(Strang(RK4())),
        "strang(heun, exact damping)": Entry(Strang(), "damped"),
        "lie_strang(heun)": _explicit(LieStrang(diffrax.Heun())),
        "parallel_splitting(euler)": _explicit(ParallelSplitting(diffrax.Euler())),
        "parallel_splitting(heun)": _explicit(ParallelSplitting(diffrax.Heun())),
        "yoshida4(rk4)": _explicit(yoshida4(RK4())),
        "suzuki4(rk4)": _explicit(suzuki4(RK4())),
        "paper_splitting": _on_sphere_only(PaperSplitting()),
        "consistent_paper_splitting": _on_sphere_only(ConsistentPaperSplitting()),
        "residual(euler)": Entry(Residual(diffrax.Euler())),
        "residual(rk4)": Entry(Residual(RK4())),
        "residual(gated_rk2)": Entry(Residual(_gated())),
        "velocity(euler)": Entry(Velocity(diffrax.Euler())),
        "adams_bashforth(2)": _explicit(AdamsBashforth(2)),
        "adams_bashforth(3)": _explicit(AdamsBashforth(3)),
        "leapfrog": _explicit(Leapfrog()),
        "nesterov": _explicit(Nesterov(0.5, 0.5, 1.0)),
        "heavy_ball": _explicit(HeavyBall(0.5, 1.0)),
        "presymplectic_euler": _explicit(PresymplecticEuler(1.0, 0.1)),
        "exponential_euler": _explicit(ExponentialEuler(), "damped"),
        "etdab2": _explicit(ETDAB2(), "damped"),
        "implicit_euler": Entry(ImplicitEuler()),
        "implicit_midpoint": Entry(ImplicitMidpoint()),
        "kvaerno3": Entry(diffrax.Kvaerno3()),
        "kvaerno4": Entry(diffrax.Kvaerno4()),
        "kvaerno5": Entry(diffrax.Kvaerno5()),
    }


class Row(NamedTuple):
    """What was measured of one scheme on one problem.

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


def applies(scheme: str, constraint: str) -> bool:
    """Whether a scheme can be measured on a constraint."""
    entry = find_scheme(scheme)
    return entry.on_free if constraint == "free" else entry.on_sphere is not None


def find_scheme(scheme: str) -> Entry:
    """The entry of that name.

    **Raises:** `InputError` for an unknown one.
    """
    if scheme not in schemes():
        raise InputError(f"--scheme {scheme}: unknown. Known: {', '.join(schemes())}.")
    return schemes()[scheme]


def measure_order(scheme: str, control: str, constraint: str) -> Row:
    """The order of convergence of a scheme, in the precision of JAX (use float64).

    **Arguments:**

    - `scheme`: one of `schemes()`.
    - `control`: one of `CONTROLS`.
    - `constraint`: one of `CONSTRAINTS` to which it `applies`.
    """
    entry = find_scheme(scheme)
    solver = entry.solver if constraint == "free" else entry.on_sphere
    assert solver is not None
    equation, u0 = _problem(entry.block, control, constraint)
    exact = _reference(solver, entry.block, control, constraint)
    expected = solver.order(equation.terms) or 0
    counts = list(_STEPS[expected])
    solutions = [_run(equation, u0, solver, steps) for steps in counts]
    errors = [float(jnp.max(jnp.abs(solution.u1 - exact))) for solution in solutions]
    used = [i for i, error in enumerate(errors) if error > _ROUNDING][-3:]
    h, log_errors = 1 / np.array(counts)[used], np.log(np.array(errors)[used])
    observed = float(np.polyfit(np.log(h), log_errors, 1)[0])
    splitting, sub_step = _parts_of_error(solver, equation, u0, exact, counts[-1])
    return Row(
        scheme=scheme,
        control=control,
        constraint=constraint,
        expected_order=expected,
        observed_order=observed,
        error_constant=errors[used[-1]] / h[-1] ** expected,
        splitting_error=splitting,
        sub_step_error=sub_step,
        constraint_residual=float(solutions[-1].stats["constraint_residual"]),
        steps=counts,
        errors=errors,
    )


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


def _block(name: str, constrained: bool) -> Callable:
    """A maker of blocks. On a constraint the operators take the state as it is."""
    norm = Free() if constrained else LayerNorm(eps=1e-5)

    def make(key):
        keys = jax.random.split(key, 4)
        attention = Attention(_FEATURES, 2, key=keys[0], normalization=norm, std=0.25)
        if name == "paper":
            first, second = (
                FeatureIntegral(_FEATURES, key=k, normalization=norm, std=0.2)
                for k in keys[1:3]
            )
            return attention, first, second
        feed_forward = FeedForward(_FEATURES, key=keys[1], normalization=norm, std=0.2)
        if name == "damped":
            return attention, feed_forward, Damping(0.5 + jax.random.uniform(keys[3], (8,)))
        return attention, feed_forward

    return make


@ft.cache
def _problem(block: str, control: str, constraint: str) -> tuple[Equation, Array]:
    make: Any = CONTROLS[control]
    theta: AbstractControl = make.build(
        _block(block, constraint != "free"), _INTERVALS, key=jax.random.key(1)
    )
    equation = Equation(theta, CONSTRAINTS[constraint], TokenDomain.uniform(_TOKENS))
    u0 = jax.random.normal(jax.random.key(2), (_TOKENS, _FEATURES))
    return equation, CONSTRAINTS[constraint].project(u0)


def _run(equation: Equation, u0: Array, solver: diffrax.AbstractSolver, steps: int):
    return solve(equation, u0, solver=solver, steps_per_interval=steps, gradient=Direct())


def _reference(
    solver: diffrax.AbstractSolver, block: str, control: str, constraint: str
) -> Array:
    """The solution of what the scheme converges to, by an eighth-order method."""
    inner = solver.solver if isinstance(solver, Projected) else solver
    if isinstance(inner, AbstractMomentum):
        return _with_velocity(inner, *_problem(block, control, constraint))
    if isinstance(inner, Residual | Velocity):
        return _tight(type(inner)(diffrax.Dopri8(), inner.block), block, control, constraint)
    return _tight(diffrax.Dopri8(), block, control, constraint)


@ft.cache
def _tight(solver: diffrax.AbstractSolver, block: str, control: str, constraint: str) -> Array:
    equation, u0 = _problem(block, control, constraint)
    return _run(equation, u0, Projected(solver), 48).u1


def _with_velocity(solver: AbstractMomentum, equation: Equation, u0: Array) -> Array:
    """The limit of a scheme with momentum,

        u_t = k v,   v_t = -k r(t) v + g(t) Σ_i A_i(u),

    k the number of operators, with r and g read off its coefficients over a tiny step. On a
    constraint u moves with the tangential part of k v.
    """
    number, tiny = equation.num_operators, 1e-7
    state = (u0, jnp.zeros_like(u0))
    for index in range(equation.control.num_intervals):
        terms = equation.terms_of(index)
        (field, *_), raw = operator_fields(terms), without_constraint(terms)

        def rates(t, state, args, field=field, raw=raw):
            u, v = state
            kick = solver.kick(0, t, t + tiny)
            friction, gain = (1 - kick.damping) / tiny, kick.strength / tiny
            force = raw.vf_prod(t, u, None, raw.contr(0.0, 1.0))
            drift = field.constraint(t).tangent(u, number * v)
            return drift, gain * force - number * friction * v

        state = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            diffrax.Dopri8(),
            t0=float(index),
            t1=index + 1.0,
            dt0=1 / 48,
            y0=state,
            saveat=diffrax.SaveAt(t1=True),
        ).ys
        state = jax.tree.map(lambda x: x[0], state)
    return state[0]


def _parts_of_error(
    solver: diffrax.AbstractSolver,
    equation: Equation,
    u0: Array,
    exact: Array,
    steps: int,
) -> tuple[float | None, float | None]:
    """The error of the splitting with exact sub-steps, and what the sub-solver adds."""
    # Not isinstance, which looks through wrappers.
    if not issubclass(type(solver), AbstractSplit):
        return None, None
    sub_solver = Projected(diffrax.Dopri8())
    split = eqx.tree_at(lambda s: s.sub_solver, solver, sub_solver)
    ideal = _run(equation, u0, split, steps).u1
    actual = _run(equation, u0, solver, steps).u1
    return (
        float(jnp.max(jnp.abs(ideal - exact))),
        float(jnp.max(jnp.abs(actual - ideal))),
    )


def plot_orders(path: Path, rows: list[Row]) -> None:
    """Error against step size on logarithmic axes: a panel for each control and constraint,
    a line for each scheme, coloured by its expected order."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(f"{row.control}, {row.constraint}", []).append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(1.6 + 3.6 * len(panels), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    few = len({row.scheme for row in rows}) <= 10
    for axes, (title, mine) in zip(all_axes, panels.items(), strict=True):
        for row in sorted(mine, key=lambda row: row.expected_order):
            label = row.scheme if few else f"order {row.expected_order}"
            seen = axes.get_legend_handles_labels()[1]
            axes.loglog(
                1 / np.array(row.steps),
                row.errors,
                color=None if few else f"C{row.expected_order}",
                marker="o",
                markersize=3,
                linewidth=1,
                label="_" if label in seen else label,
            )
        axes.set(title=title, xlabel="step size h (layers)")
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("largest error at T")
    all_axes[-1].legend(frameon=False, fontsize="small", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150)
