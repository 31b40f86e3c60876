"""Orders of convergence, measured."""

from typing import NamedTuple

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...equation import Equation
from ...solvers import AbstractSplitting, Projected
from .problem import problem, reference, run
from .registry import find_scheme


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
    equation, u0 = problem(entry.block, control, constraint)
    exact = reference(solver, entry.block, control, constraint)
    expected = solver.order(equation.terms) or 0
    counts = list(_STEPS[expected])
    solutions = [run(equation, u0, solver, steps) for steps in counts]
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


def _parts_of_error(
    solver: diffrax.AbstractSolver,
    equation: Equation,
    u0: Array,
    exact: Array,
    steps: int,
) -> tuple[float | None, float | None]:
    """The error of the splitting with exact sub-steps, and what the sub-solver adds."""
    # Not isinstance, which looks through wrappers.
    if not issubclass(type(solver), AbstractSplitting):
        return None, None
    sub_solver = Projected(diffrax.Dopri8())
    split = eqx.tree_at(lambda s: s.sub_solver, solver, sub_solver)
    ideal = run(equation, u0, split, steps).u1
    actual = run(equation, u0, solver, steps).u1
    return (
        float(jnp.max(jnp.abs(ideal - exact))),
        float(jnp.max(jnp.abs(actual - ideal))),
    )
