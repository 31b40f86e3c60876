"""Vectors of texts."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..arguments import checked
from .text import Text, as_text
from .text_encoder import TextEncoder


@checked
def sentence_embedding(
    model: TextEncoder, text: Text | Int[Array | np.ndarray, "*batch tokens"]
) -> Float[Array, "*batch features"]:
    """A vector of length one for each text: the mean of the states of its tokens, without
    padding. Reference: Reimers, Gurevych, arXiv 1908.10084."""
    return mean_vectors(model(text), as_text(text))


def mean_vectors(
    states: Float[Array, "*batch tokens features"], text: Text
) -> Float[Array, "*batch features"]:
    """The mean of states over tokens, without padding, scaled to length one."""
    weights = jnp.ones(states.shape[:-1]) if text.mask is None else jnp.asarray(text.mask)
    weights = weights[..., None].astype(states.dtype)
    mean = jnp.sum(weights * states, axis=-2) / jnp.sum(weights, axis=-2)
    length = jnp.sqrt(jnp.sum(mean**2, axis=-1, keepdims=True))
    return mean / jnp.maximum(length, 1e-12)
