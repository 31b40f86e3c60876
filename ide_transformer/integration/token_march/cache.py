"""The cache of a program: arrays of tokens that its field evaluations keep."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PyTree

from .programs import run_marked


# For each evaluation of a token integral, arrays `[..., tokens, …]` of all tokens; of attention
# a pair, keys and values.
TokenCache: TypeAlias = list[list[Array]]


def with_cache(program: Callable) -> Callable:
    """The program `(*arguments) ↦ outputs` as a pure function of the cache,

        (cache, start, *arguments) ↦ (outputs, new),

    where each evaluation marked in the program has arrays of all tokens in `cache`, and in
    `new` those of the tokens of the state, the ones from `start` on. With `None` for the cache
    there are no other tokens. An evaluation in the branch of a `lax.cond` that is not taken
    gives zeros.
    """

    def run(cache: TokenCache | None, start: Int[Array, ""] | int, *arguments: PyTree):
        def fill(number, new, axis, size):
            return new if cache is None else written(cache[number], new, start, axis)

        outputs, new = run_marked(program, fill, *arguments)
        if cache is not None and len(new) != len(cache):
            raise RuntimeError(f"{len(cache)} evaluations are cached, but {len(new)} made.")
        return outputs, new

    return run


def written(cache: PyTree, new: PyTree, start: Int[Array, ""] | int, axis: int) -> PyTree:
    """The cache with the arrays of the tokens from `start` on replaced."""
    return jax.tree.map(
        lambda old, x: lax.dynamic_update_slice_in_dim(old, x, start, axis), cache, new
    )


def with_room(new: TokenCache, tokens: int, axis: int) -> TokenCache:
    """A cache for all tokens that holds the first ones."""

    def empty(x):
        return jnp.zeros((*x.shape[:axis], tokens, *x.shape[axis + 1 :]), x.dtype)

    return written(jax.tree.map(empty, new), new, 0, axis)
