"""Errors of a model at other tokens, features and steps."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ide_transformer import equation as eq
from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.dynamics import FunctionSolve, relative_error
from ide_transformer.errors import InputError
from ide_transformer.models import Field, OperatorModel
from ide_transformer.training import LoadedModel, evaluation_task


def refinement_errors(
    solve: FunctionSolve, say: Callable[[str], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Refines tokens, features and steps, one at a time, by 1, 2 and 4.

    The error is relative to a refinement by 16. The order, in the last row of each, is
    `log2(‖u_1 - u_2‖ / ‖u_2 - u_4‖)`, which tends to p if the error is `C h^p`. (Errors against
    a finer solution of the same scheme fall faster.) `say` is called before each resolution.
    """
    domain = solve.domain
    rows = []
    features = ["features"] if solve.has_functions else []
    for name in ("tokens", *features, "depth"):
        say(f"errors of {name}")
        finest = solve.finer(name, 16).outputs(domain)
        solutions = []
        for factor in (1, 2, 4):
            finer = solve.finer(name, factor)
            solutions.append(finer.outputs(domain))
            rows.append(
                {
                    "resolution": name,
                    "at": finer.described(name),
                    "error": float(relative_error(solutions[-1], finest)),
                    "order": None,
                    "cost": finer.cost / solve.cost,
                }
            )
        first, second = (
            float(jnp.linalg.norm(x - y)) for x, y in itertools.pairwise(solutions)
        )
        if first and second:
            rows[-1]["order"] = float(np.log2(first / second))
    return rows


@checked
def problem_of(loaded: LoadedModel, samples: PositiveInt = 16) -> FunctionSolve:
    """The solve of a run for held-out functions of its task, which are interpolated by cubic
    polynomials, in float64."""
    other = "; for losses, write ide-transformer evaluate --mesh"
    model = loaded.expected(OperatorModel, other).ordinary
    task = evaluation_task(loaded)
    batch = next(task.held_out(samples, samples))
    channels = model.inputs.channels is not None
    if isinstance(batch.inputs, Field) or np.ndim(batch.inputs) - channels != 2:
        raise InputError(f"{loaded.path}: its functions are not on the grid of a line.")
    values = jnp.asarray(np.asarray(batch.inputs), jnp.result_type(float))
    source = model.inputs.points_of(values.shape[1])

    def inputs(points: Array) -> Array:
        to = eq.interpolation(source, eq.TokenDomain(points), degree=3)
        return to(values) if channels else to(values[..., None])[..., 0]

    wide = jax.tree.map(
        lambda x: x.astype(values.dtype) if getattr(x, "dtype", None) == jnp.float32 else x,
        loaded.model,
    )
    return FunctionSolve.of(wide, inputs, None)
