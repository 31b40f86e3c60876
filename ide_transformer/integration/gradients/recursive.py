from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from ...arguments import PositiveInt
from .gradient import AbstractGradient, save_products


class Recursive(AbstractGradient):
    """Recursive checkpointing: keep states at the ends of segments of depth only, and solve
    each segment again, by the same rule, when the gradient reaches it.

    With L intervals it keeps about `levels L^(1/levels)` states, and makes `levels - 1`
    solves more than `Recompute`, which is the case of one level; with `levels = log2 L`
    memory is logarithmic. Reference: Griewank, Optim. Methods Softw. 1 (1992); Chen et al.,
    arXiv 1604.06174.

    **Arguments:**

    - `levels`: the number of levels of nested segments; 2 keeps about `2 sqrt(L)` states.
    - `policy`: the values saved inside an interval of the current segment; see `Recompute`.
    """

    levels: PositiveInt = eqx.field(static=True, default=2)
    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        # More levels than halvings of the depth would not end.
        halvings = jax.tree.leaves(xs)[0].shape[0].bit_length()
        return _scan(body, carry, xs, min(self.levels, halvings))


def _scan(body: Callable, carry: PyTree, xs: PyTree, levels: int) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, xs)` in nested segments; the gradient keeps their ends."""
    number = jax.tree.leaves(xs)[0].shape[0]
    length = _segment_length(number, levels)
    if levels == 1 or length == 1:
        return lax.scan(body, carry, xs)

    def segment(carry, xs):
        return _scan(body, carry, xs, levels - 1)

    segment = jax.checkpoint(segment, policy=None, prevent_cse=False)
    whole = number - number % length
    segments = jax.tree.map(lambda x: x[:whole].reshape(-1, length, *x.shape[1:]), xs)
    carry, ys = lax.scan(segment, carry, segments)
    ys = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)
    if whole == number:
        return carry, ys
    carry, last = segment(carry, jax.tree.map(lambda x: x[whole:], xs))
    return carry, jax.tree.map(lambda y, end: jnp.concatenate([y, end]), ys, last)


def _segment_length(number: int, levels: int) -> int:
    """The length of a segment with which the fewest states are kept. A rest costs a copy of
    the weights, so lengths that leave none are preferred."""

    def kept(length: int) -> float:
        below = (levels - 1) * length ** (1 / max(levels - 1, 1))
        return number // length + below + (4 if number % length else 0)

    return min(range(1, number + 1), key=kept)
