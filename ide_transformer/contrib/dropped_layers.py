"""Chooses layers to leave out by published rules: angular distance, and one layer at a time."""

from collections.abc import Callable, Iterator

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.contrib.replaced_layers import batches, marched_states
from ide_transformer.dynamics import in_layers, take_layers, whole_layers
from ide_transformer.errors import InputError
from ide_transformer.models import Model


def angular_distances(
    model: Model, number: int, inputs: PyTree[ArrayLike]
) -> Float[np.ndarray, " cuts"]:
    """How far the layers l … l+n-1 turn the state, for each l:

        d(l) = 1/π mean arccos(⟨u_l, u_{l+n}⟩ / |u_l| |u_{l+n}|),

    u_l the state before layer l at the last token of a sample that is no padding, the mean over
    samples. Reference: Gromov et al., arXiv 2403.17887.

    **Arguments:** `number`, n, 1 to the number of layers, and `inputs`, the calibration batch,
    its first axis the samples.
    """
    if not 0 < number <= model.layers:
        raise InputError(f"angular_distances: {number=}: give 1 to {model.layers}.")
    angles = [np.asarray(_angles(model, number, part)) for part in batches(inputs)]
    return np.mean(np.concatenate(angles, axis=1), axis=1, dtype=float) / np.pi


def least_angle(model: Model, number: int, inputs: PyTree[ArrayLike]) -> range:
    """The `number` neighbouring layers with the least angular distance, see
    `angular_distances`."""
    first = int(np.argmin(angular_distances(model, number, inputs)))
    return range(first, first + number)


def eliminate(
    model: Model, score: Callable[[Model], Float[Array, ""]]
) -> Iterator[tuple[tuple[int, ...], Model]]:
    """Leave out one layer at a time, each time the layer without which `score` is least, down
    to one layer. Yields the layers that are left and their model.

    With the loss on calibration text as the score it is SLEB (Song et al., arXiv 2402.09025),
    with the divergence from the native outputs it needs no targets.

    **Arguments:** `score`, compiled, from a model to a number; not finite counts as worst.
    """
    native = in_layers(model)
    operators = model.equation.num_operators
    kept = tuple(range(model.layers))

    def without(layer: int) -> tuple[tuple[int, ...], Model]:
        layers = tuple(x for x in kept if x != layer)
        return layers, take_layers(native, whole_layers(layers, operators))

    while len(kept) > 1:
        scores = [float(np.nan_to_num(score(without(x)[1]), nan=np.inf)) for x in kept]
        kept, shorter = without(kept[int(np.argmin(scores))])
        yield kept, shorter


@eqx.filter_jit
def _angles(model: Model, number: int, inputs: PyTree[Array]) -> Float[Array, "cuts samples"]:
    _, states, counted = marched_states(model, inputs)
    tokens = counted.shape[-1]
    last = tokens - 1 - jnp.argmax(counted[..., ::-1], axis=-1)
    ends = jnp.take_along_axis(states, last[None, :, None, None], axis=2)[:, :, 0]
    units = ends / jnp.linalg.norm(ends, axis=-1, keepdims=True)
    cosines = jnp.sum(units[:-number] * units[number:], axis=-1)
    return jnp.arccos(jnp.clip(cosines, -1, 1))
