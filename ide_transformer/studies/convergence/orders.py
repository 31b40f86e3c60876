from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import diffrax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...figures import Curve, plot_panels
from ...solvers import Projected, splitting_of, with_sub_solver
from .registry import Case, find_scheme, problem, run


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
    if splitting_of(solver) is None:
        return None
    return run(case, with_sub_solver(solver, Projected(diffrax.Dopri8())), steps).u1


def _largest(u: Array, exact: Array) -> float:
    return float(jnp.max(jnp.abs(u - exact)))
