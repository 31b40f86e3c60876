"""Blocks stacked along a leading axis, which is depth."""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ...errors import InputError


# Draws the weights of one block.
MakeBlock: TypeAlias = Callable[[PRNGKeyArray], PyTree]


def stack_blocks(make_block: MakeBlock, number: int, key: PRNGKeyArray) -> PyTree:
    """`number` blocks made from as many keys, stacked along a leading axis."""
    return eqx.filter_vmap(make_block)(jax.random.split(key, number))


def arrays_of(blocks: PyTree) -> PyTree[Array]:
    """The blocks without their static parts."""
    return eqx.filter(blocks, eqx.is_array)


def with_static(arrays: PyTree[Array], blocks: PyTree) -> PyTree:
    """A block of these arrays, with the static parts of `blocks`."""
    return eqx.combine(arrays, eqx.filter(blocks, eqx.is_array, inverse=True))


def take(blocks: PyTree, index: Int[Array, ""] | int) -> PyTree:
    """One block of a stack."""

    def one(x):
        # Traced in a fraction of the time of `x[index]`.
        return lax.dynamic_index_in_dim(x, index, keepdims=False) if eqx.is_array(x) else x

    return jax.tree.map(one, blocks)


def combine(basis: Float[Array, "*points terms"], blocks: PyTree) -> PyTree:
    """`Σ_k φ_k Θ_k`, for any number of points at once; of integers the first."""

    def one(x):
        return jnp.tensordot(basis.astype(x.dtype), x, axes=1)

    def first(x):
        return jnp.broadcast_to(x[0], (*basis.shape[:-1], *x.shape[1:]))

    def part(x):
        if not eqx.is_array(x):
            return x
        return one(x) if eqx.is_inexact_array(x) else first(x)

    return jax.tree.map(part, blocks)


def check_stack(owner: object, blocks: PyTree) -> int:
    """The length of the leading axis that all arrays of `blocks` share.

    **Raises:** `InputError` where they do not share one.
    """
    named = [
        (jax.tree_util.keystr(path), jnp.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(arrays_of(blocks))
    ]
    lengths = {shape[:1] for _, shape in named}
    if len(lengths) != 1 or not lengths.isdisjoint({(), (0,)}):
        shapes = ", ".join(f"{name}: {shape}" for name, shape in named) or "no arrays at all"
        name = type(owner).__name__
        field = next(field for field, x in vars(owner).items() if x is blocks)
        raise InputError(
            f"{name}: {field} must hold arrays that all have the depth as leading axis, but "
            f"got {shapes}. Build them by equinox.filter_vmap over keys, or by {name}.build."
        )
    return lengths.pop()[0]
