"""The error of a model's outputs, compared with those of its native solve."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import Equation, TokenDomain, with_source
from ..models import AbstractModel


def output_error(
    outputs: PyTree[Array], exact: PyTree[Array], domain: TokenDomain
) -> Float[Array, ""]:
    """`(Σ |y - y*|² / Σ |y*|²)^½`, over all samples and outputs. Outputs at tokens that are
    padding are left out."""
    pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(exact), strict=True)
    squares = [
        (
            jnp.sum(without_padding(y - reference, domain) ** 2),
            jnp.sum(without_padding(reference, domain) ** 2),
        )
        for y, reference in pairs
    ]
    ratio = sum(square for square, _ in squares) / sum(scale for _, scale in squares)
    # The derivative of a square root at zero is infinite.
    return jnp.where(ratio > 0, jnp.sqrt(jnp.where(ratio > 0, ratio, 1)), 0)


def error_against(
    model: AbstractModel, inputs: PyTree[ArrayLike]
) -> Callable[[AbstractModel], Float[Array, ""]]:
    """The output error of another model with these inputs, compiled once for each structure
    of that model."""
    exact = eqx.filter_jit(lambda m, x: m(x))(model, inputs)
    _, domain = model.embed(inputs)
    compiled = eqx.filter_jit(lambda m, x: output_error(m(x), exact, domain))
    return lambda other: compiled(other, inputs)


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


def evaluations_of(model: AbstractModel, inputs: PyTree[ArrayLike]) -> float:
    """Field evaluations of one solve, the mean over samples that have steps of their own."""
    return float(jnp.mean(model.solve(inputs).stats["field_evaluations"]))
