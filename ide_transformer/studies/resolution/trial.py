"""Error budgets against what is measured."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from ...dynamics import ErrorBudget, FunctionSolve, error_budget, gain, refinements


# By which tokens and features are multiplied for what an error is measured against.
_FINE = 8


class Trial(NamedTuple):
    """An error budget, and what each of its refinements really leaves.

    - `budget`: the budget.
    - `measured`: the error against the solution at eight times the tokens and features, exact
      in depth.
    - `left`: that after each refinement, by resolution.
    """

    budget: ErrorBudget
    measured: float
    left: dict[str, float]

    @property
    def cheapest(self) -> str:
        """The refinement that removed the most for what it costs more."""
        costs = {part.resolution: part.cost for part in self.budget.parts}
        return max(self.left, key=lambda x: gain(self.measured, self.left[x], costs[x]))

    @property
    def row(self) -> dict[str, Any]:
        """A line of a table."""
        shares = {part.resolution: part.share for part in self.budget.parts}
        return {
            **shares,
            "sum": self.budget.total,
            "measured": self.measured,
            "named": self.budget.cheapest.resolution,
            "cheapest": self.cheapest,
        }


def tried_budget(solve: FunctionSolve) -> Trial:
    """The error budget of a solve, and the errors of it and of its refinements."""
    budget = error_budget(solve.model, solve.inputs, solve.tokens)
    reference = solve.finer("tokens", _FINE).exact()
    if solve.has_functions:
        reference = reference.finer("features", _FINE)
    true = reference.outputs(solve.domain)

    def error(outputs: Array) -> float:
        return float(jnp.linalg.norm(outputs - true) / jnp.linalg.norm(true))

    left = {
        name: error(finer.outputs(solve.domain)) for name, finer in refinements(solve).items()
    }
    return Trial(budget, error(solve.outputs(solve.domain)), left)
