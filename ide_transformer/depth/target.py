"""How far what is read of a model's outputs is from what its native solve gives."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import Equation, TokenDomain, with_source
from ..models import AbstractModel


Read = Callable[[PyTree[Array], PyTree[ArrayLike]], PyTree[Array]]


class Reference(eqx.Module):
    """What a native model makes of a batch: that against which others are judged.

    **Arguments:**

    - `inputs`: the batch, its first axis the samples.
    - `exact`: the native outputs for `inputs`.
    - `read`: maps outputs and inputs to the quantity whose error counts, which is what a task
      makes of the outputs; `None` for the outputs themselves, those at padded tokens left out.
    """

    inputs: PyTree[ArrayLike]
    exact: PyTree[Array]
    read: Read | None = eqx.field(static=True, default=None)

    @eqx.filter_jit
    def error(self, model: AbstractModel) -> Float[Array, ""]:
        """The relative error of what is read of another model's outputs. Compiled once for
        each structure of that model."""
        return self.error_of(model, model(self.inputs))

    def error_of(self, model: AbstractModel, outputs: PyTree[Array]) -> Float[Array, ""]:
        """The same for outputs that are known."""
        read = [quantity(model, y, self.inputs, self.read) for y in (outputs, self.exact)]
        return relative_error(*read)

    def part(self, samples: ArrayLike) -> "Reference":
        """Those of the samples whose numbers are given."""
        batch = jax.tree.map(jnp.asarray, (self.inputs, self.exact))
        inputs, exact = jax.tree.map(lambda x: x[jnp.asarray(samples)], batch)
        return Reference(inputs, exact, self.read)


def reference(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Read | None = None
) -> Reference:
    """The `Reference` of a model for a batch."""
    return Reference(inputs, eqx.filter_jit(lambda m, x: m(x))(model, inputs), read)


def quantity(
    model: AbstractModel,
    outputs: PyTree[Array],
    inputs: PyTree[ArrayLike],
    read: Read | None,
) -> PyTree[Array]:
    """What is read of a model's outputs."""
    if read is not None:
        return read(outputs, inputs)
    _, domain = model.embed(inputs)
    return jax.tree.map(lambda y: without_padding(y, domain), outputs)


def relative_error(y: PyTree[Array], exact: PyTree[Array]) -> Float[Array, ""]:
    """`(Σ |y - y*|² / Σ |y*|²)^½`, over all numbers in y*."""
    difference = jax.tree.map(jnp.subtract, y, exact)
    ratio = square(difference) / square(exact)
    # The derivative of a square root at zero is infinite.
    return jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), ratio)


def square(y: PyTree[Array]) -> Float[Array, ""]:
    """`Σ |y|²`."""
    return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(y)), jnp.zeros(()))


def without_padding(y: Float[Array, "..."], domain: TokenDomain) -> Float[Array, "..."]:
    """Outputs of the form `[..., tokens, values]` with those of padded tokens set to zero;
    any others as they are."""
    weights = domain.weights
    if weights is None or y.shape[:-1][-weights.ndim :] != weights.shape:
        return y
    counted = jnp.broadcast_to(weights > 0, y.shape[:-1])
    return jnp.where(counted[..., None], y, 0)


def embedded(
    model: AbstractModel, inputs: PyTree[ArrayLike]
) -> tuple[Equation, Float[Array, "*batch tokens features"]]:
    """The equation that a model solves for these inputs, and its initial state."""
    u0, domain = model.embed(inputs)
    return Equation(with_source(model.control, u0), model.constraint, domain), u0


@eqx.filter_jit
def evaluations_of(model: AbstractModel, inputs: PyTree[ArrayLike]) -> Float[Array, ""]:
    """Field evaluations of one solve, the mean over samples that have steps of their own.
    Those of fixed steps are known without a solve, which the compiler then leaves out."""
    return jnp.mean(model.solve(inputs).stats["field_evaluations"])
