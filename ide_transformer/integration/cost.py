"""Field evaluations of a whole solve."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..equation import Equation
from ..solvers import Evaluations, count_evaluations, evaluations_made


def step_cost(
    equation: Equation, solver: diffrax.AbstractSolver, features: int
) -> Evaluations | None:
    """The cost of the steps of a solve, known ahead; `None` where it depends on the state."""
    block = eqx.filter_eval_shape(equation.control, 0.0)
    return count_evaluations(solver, block, features)


def field_evaluations(
    cost: Evaluations | None,
    steps: Int[Array, ""] | int,
    starts: Int[Array, ""] | int,
    counted: PyTree,
) -> Float[Array, ""] | float:
    """The field evaluations of a solve: steps times their cost, or those that an implicit
    scheme has counted, or NaN where it has not.

    **Arguments:**

    - `starts`: the number of steps before which the field jumps.
    - `counted`: the last state of the solver, or the counts of all intervals, stacked.
    """
    if cost is not None:
        return steps * cost.following + starts * (cost.first - cost.following)
    made = evaluations_made(counted)
    return jnp.nan if made is None else jnp.sum(made.count)
