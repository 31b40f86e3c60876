from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import TokenDomain
from ..models import AbstractModel


# From outputs and inputs to what the task reads of the outputs.
Quantity = Callable[[PyTree[Array], PyTree[ArrayLike]], PyTree[Array]]


class Target(eqx.Module):
    """The outputs of the native model for a batch. Other models are compared with them.

    **Arguments:**

    - `inputs`: the batch, its first axis the samples.
    - `outputs`: the native outputs for `inputs`.
    - `read`: maps outputs and inputs to the quantity whose error counts, which is what a task
      makes of the outputs; `None` for the outputs themselves, without those at padded tokens.
    """

    inputs: PyTree[ArrayLike]
    outputs: PyTree[Array]
    read: Quantity | None = eqx.field(static=True, default=None)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return jax.tree.leaves(self.outputs)[0].shape[0]

    @eqx.filter_jit
    def error(self, model: AbstractModel) -> Float[Array, ""]:
        """The relative error of what is read of another model's outputs. Compiled once for
        each structure of that model."""
        return self.output_error(model, model(self.inputs))

    def output_error(self, model: AbstractModel, outputs: PyTree[Array]) -> Float[Array, ""]:
        """The relative error of what is read of outputs that are known."""
        both = outputs, self.outputs
        return relative_error(*(read_outputs(model, y, self.inputs, self.read) for y in both))

    def part(self, samples: ArrayLike) -> "Target":
        """The target for some of the samples, given by their numbers."""
        batch = jax.tree.map(jnp.asarray, (self.inputs, self.outputs))
        inputs, outputs = jax.tree.map(lambda x: x[jnp.asarray(samples)], batch)
        return Target(inputs, outputs, self.read)


def native_target(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Target:
    """The `Target` of a model for a batch."""
    return Target(inputs, eqx.filter_jit(lambda m, x: m(x))(model, inputs), read)


def read_outputs(
    model: AbstractModel,
    outputs: PyTree[Array],
    inputs: PyTree[ArrayLike],
    read: Quantity | None,
) -> PyTree[Array]:
    """The quantity read of a model's outputs; see `Target`."""
    if read is not None:
        return read(outputs, inputs)
    _, domain = model.embed(inputs)
    return jax.tree.map(lambda y: zero_padding(y, domain), outputs)


def relative_error(y: PyTree[Array], exact: PyTree[Array]) -> Float[Array, ""]:
    """`(Σ |y - y*|² / Σ |y*|²)^½`, over all numbers in y*."""
    difference = jax.tree.map(jnp.subtract, y, exact)
    ratio = square(difference) / square(exact)
    # The derivative of a square root at zero is infinite.
    return jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), ratio)


def square(y: PyTree[Array]) -> Float[Array, ""]:
    """`Σ |y|²`."""
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(y)), jnp.zeros(()))


def zero_padding(y: Float[Array, "..."], domain: TokenDomain) -> Float[Array, "..."]:
    """Outputs of the form `[..., tokens, values]` with zeros at padded tokens; any others
    unchanged."""
    weights = domain.weights
    if weights is None or y.shape[:-1][-weights.ndim :] != weights.shape:
        return y
    counted = jnp.broadcast_to(weights > 0, y.shape[:-1])
    return jnp.where(counted[..., None], y, 0)
