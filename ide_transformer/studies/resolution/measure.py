"""Losses and errors against the resolutions of tokens, features and depth."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...dynamics import FunctionSolve
from ...equation import TokenDomain, interpolation
from ...errors import InputError
from ...models import Field, OperatorModel
from ...training import LoadedModel, evaluation_task
from ...training.evaluation import at_least_one


# What each resolution is multiplied by, and by how much more that of the reference.
_FACTORS, _FINER = (1, 2, 4), 4


def refinement_errors(
    solve: FunctionSolve, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """The errors of one, two and four times the tokens, the features and the steps, each with
    the others as they are, against four times the last. The order is that of what they change:
    `log2(‖u_1 - u_2‖ / ‖u_2 - u_4‖)`, which tends to p where the error is `C h^p`. (Errors
    against a finer solution of the same scheme fall faster than that.) It stands in the last
    row of each.

    **Arguments:**

    - `say`: called with a line before each resolution.
    """
    domain, rows = solve.domain, []
    features = ["features"] if solve.has_functions else []
    for name in ("tokens", *features, "depth"):
        say(f"errors of {name}")
        finest = solve.finer(name, _FINER * _FACTORS[-1]).outputs(domain)
        size, solutions = jnp.linalg.norm(finest), []
        for factor in _FACTORS:
            finer = solve.finer(name, factor)
            solutions.append(finer.outputs(domain))
            rows.append(
                {
                    "resolution": name,
                    "at": finer.described(name),
                    "error": float(jnp.linalg.norm(solutions[-1] - finest) / size),
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


def problem_of(
    loaded: LoadedModel, samples: int = 16, tokens: int | None = None
) -> FunctionSolve:
    """The solve of a run for held-out functions of its task, by cubic interpolation between
    the points where they are known, in float64.

    **Raises:** `InputError` for a model of something else than functions.
    """
    model = loaded.model.ordinary
    if not isinstance(model, OperatorModel):
        raise InputError(
            f"{loaded.path} holds a {type(model).__name__}, which maps no functions; give a "
            "run of an operator_model; for losses, scripts/evaluate.py --mesh."
        )
    at_least_one("samples", samples)
    task = evaluation_task(loaded)
    batch = next(task.held_out(samples, samples))
    if isinstance(batch.inputs, Field):
        raise InputError(
            f"{loaded.path}: its functions in dimension {model.dimension} come with points of "
            "their own; errors of refinement are measured on the grid of a line."
        )
    values = jnp.asarray(np.asarray(batch.inputs), jnp.result_type(float))
    source = model.points_of(values.shape[1])

    def inputs(points: Array) -> Array:
        to = interpolation(source, TokenDomain(points), degree=3)
        return to(values[..., None])[..., 0]

    wide = jax.tree.map(
        lambda x: (
            x.astype(values.dtype) if hasattr(x, "dtype") and x.dtype == jnp.float32 else x
        ),
        loaded.model,
    )
    return FunctionSolve.of(wide, inputs, tokens)
