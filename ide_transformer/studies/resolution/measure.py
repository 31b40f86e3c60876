"""Errors against the resolutions of tokens, features and depth, and error budgets against what
is measured."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...dynamics import ErrorBudget, FunctionSolve, error_budget, gain, refinements
from ...dynamics.meshes import relative_error
from ...equation import TokenDomain, interpolation
from ...errors import InputError
from ...models import Field, OperatorModel, is_built_as
from ...training import LoadedModel, evaluation_task
from ...training.evaluation import at_least_one


# What each resolution is multiplied by, and that of the reference; and by which tokens and
# features are multiplied for what an error budget is measured against.
_FACTORS, _FINEST, _FINE = (1, 2, 4), 16, 8


def refinement_errors(
    solve: FunctionSolve, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """The errors of one, two and four times the tokens, the features and the steps, each with
    the others as they are, against four times the last. The order is that of what they change:
    `log2(‖u_1 - u_2‖ / ‖u_2 - u_4‖)`, which tends to p where the error is `C h^p`. (Errors
    against a finer solution of the same scheme fall faster than that.) It stands in the last
    row of each. `say` is called with a line before each resolution."""
    domain, rows = solve.domain, []
    features = ["features"] if solve.has_functions else []
    for name in ("tokens", *features, "depth"):
        say(f"errors of {name}")
        finest, solutions = solve.finer(name, _FINEST).outputs(domain), []
        for factor in _FACTORS:
            finer = solve.finer(name, factor)
            solutions.append(finer.outputs(domain))
            rows.append(
                {
                    "resolution": name,
                    "at": finer.described(name),
                    "error": float(relative_error(solutions[-1], finest)),
                    "order": _order(*solutions) if len(solutions) == 3 else None,
                    "cost": finer.cost / solve.cost,
                }
            )
    return rows


def _order(coarse: Array, fine: Array, finest: Array) -> float | None:
    """The order that solutions show of which each has half the step of the one before it;
    `None` where two of them are the same."""
    first, second = (float(jnp.linalg.norm(x)) for x in (coarse - fine, fine - finest))
    return float(np.log2(first / second)) if first and second else None


def problem_of(loaded: LoadedModel, samples: int = 16) -> FunctionSolve:
    """The solve of a run for held-out functions of its task, by cubic interpolation between
    the points where they are known, in float64."""
    model = loaded.model.ordinary
    if not is_built_as(model, OperatorModel):
        raise InputError(
            f"{loaded.path} holds a {type(model).__name__}, which maps no functions; give a "
            "run of an operator_model; for losses, scripts/evaluate.py --mesh."
        )
    at_least_one("samples", samples)
    task = evaluation_task(loaded)
    batch = next(task.held_out(samples, samples))
    if isinstance(batch.inputs, Field):
        raise InputError(
            f"{loaded.path}: its functions in dimension {model.inputs.dimension} come with "
            "points of their own; errors of refinement are measured on the grid of a line."
        )
    values = jnp.asarray(np.asarray(batch.inputs), jnp.result_type(float))
    source = model.inputs.points_of(values.shape[1])

    def inputs(points: Array) -> Array:
        to = interpolation(source, TokenDomain(points), degree=3)
        return to(values[..., None])[..., 0]

    def widened(x: Any) -> Any:
        single = hasattr(x, "dtype") and x.dtype == jnp.float32
        return x.astype(values.dtype) if single else x

    wide = jax.tree.map(widened, loaded.model)
    return FunctionSolve.of(wide, inputs, None)


class Trial(NamedTuple):
    """An error budget, the error against the solution at eight times the tokens and features,
    exact in depth, and that after each refinement, by resolution."""

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
    solves = {"": solve, **refinements(solve)}
    left = {
        name: float(relative_error(finer.outputs(solve.domain), true))
        for name, finer in solves.items()
    }
    return Trial(budget, left.pop(""), left)
