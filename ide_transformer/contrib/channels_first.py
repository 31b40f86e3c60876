"""Models of functions with the channels first, as in other emulators."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ide_transformer.arguments import checked
from ide_transformer.models import AbstractInputs, FunctionValues, Model


@checked
class ChannelsFirst(eqx.Module):
    """A model of functions in the layout of pdequinox, APEBench and exponax,

        [..., channels, *points] -> [..., channels, *points].

    `model` has the axis of channels last, or none for one value at each point. Its `grid` must
    be "periodic" for exponax. Pass `u[None]` for a function without an axis of channels.
    """

    model: Model[AbstractInputs, FunctionValues]

    @checked
    def __call__(self, u: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        several = self.model.read_out.channels
        axis = -1 - self.model.domain.dimension
        if several:
            return jnp.moveaxis(self.model(jnp.moveaxis(u, axis, -1)), -1, axis)
        return jnp.expand_dims(self.model(jnp.squeeze(u, axis)), axis)
