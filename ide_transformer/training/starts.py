"""Losses of a trained model whose solves begin at random states."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key, PRNGKeyArray

from .. import tasks
from ..equation import State
from ..errors import InputError
from ..memory import check_bytes
from ..models import Mesh, Model
from ..tasks import AbstractLoss, Batch, Mean, Part
from .evaluation import at_least_one, check_finite, held_out_in_depth
from .loading import LoadedModel
from .phases import model_on
from .step import with_targets


def evaluate_starts(
    loaded: LoadedModel,
    starts: int,
    meshes: Sequence[Mesh] = (Mesh(),),
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
) -> list[dict[str, Any]]:
    """`evaluate_loss` of a model whose solves begin at random states. The equation then sees
    the embedded input through operators such as `Injection` alone. Shows whether the end
    depends on the beginning. A row for each mesh, with

    - the figures of random states, the mean over so many `starts` for each sample;
    - `loss_from_input`: that of the embedded input;
    - `distance`, `largest_distance`: `‖v(T) - u(T)‖ / ‖u(T)‖`, u from the embedded input and v
      from a random state, the median and the largest over samples and starts;
    - `samples`: their number.

    Random states are normal, as large as the embedded inputs in the root mean square.

    **Arguments:** see `evaluate_loss`, and

    - `starts`: at least 1.
    - `meshes`: in depth; by default that of the model.

    **Raises:** `InputError` for such arguments.
    """
    at_least_one("starts", starts)
    task, held_out = held_out_in_depth(loaded, "random starts", meshes, text, samples, part)
    if isinstance(task, tasks.FlowMapTask) and task.unrolled > 1:
        raise InputError(
            f"starts={starts}: {loaded.path} is measured by a roll-out of several steps, and "
            "random states begin one; drop --starts."
        )
    # A key and the figures of each start on each batch are kept.
    check_bytes(f"starts={starts}", 1024 * starts * len(held_out))
    count = sum(len(jax.tree.leaves(batch.targets)[0]) for batch in held_out)
    rows = []
    for mesh in meshes:
        model, found, distances = model_on(loaded.measured, mesh), [], []
        for number, batch in enumerate(held_out):
            seeds = [jax.random.fold_in(jax.random.key(x), number) for x in range(starts)]
            keys = jnp.stack(seeds)
            all_figures, distance = _from_random_states(model, task.loss, batch, keys)
            for start in range(starts):
                figures = jax.tree.map(lambda x, start=start: x[start], all_figures)
                found.append({**figures, **task.further_means(batch, figures["loss"])})
            distances.append(np.ravel(distance))
        means, far = with_targets(tasks.averaged(found)), np.concatenate(distances)
        measured = {"distance": float(np.median(far)), "largest_distance": float(far.max())}
        own = means.pop("loss_from_input")
        figures = {**means, **task.figures(means["loss"]), "loss_from_input": own}
        rows.append({**mesh.described, **figures, **measured, "samples": count})
    check_finite(loaded, rows)
    return rows


@eqx.filter_jit
def _from_random_states(
    model: Model, loss: AbstractLoss, batch: Batch, keys: Key[Array, " starts"]
) -> tuple[dict[str, Mean], Float[Array, "starts samples"]]:
    """The figures and the distances for each key."""
    equation, u0 = model.initial_value_problem(batch.inputs)
    size, targets = jnp.sqrt(jnp.mean(u0**2)), jax.tree.map(jnp.asarray, batch.targets)

    def ended(start: State) -> tuple[State, dict[str, Mean]]:
        u1 = model.discretization.solve(equation, start, throw=False).u1
        return u1, loss.measure(model.outputs(u1), targets)

    own, of_input = ended(u0)

    def compared(key: PRNGKeyArray) -> tuple[dict[str, Mean], Float[Array, " samples"]]:
        other, figures = ended(size * jax.random.normal(key, u0.shape, u0.dtype))
        change, whole = (jnp.sum(x**2, (-2, -1)) for x in (other - own, own))
        return {**figures, "loss_from_input": of_input["loss"]}, jnp.sqrt(change / whole)

    return lax.map(compared, keys)
