"""Gradient modes: which values a solve stores for the gradient."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from ..arguments import PositiveInt, checked
from ..equation import RESIDUALS
from .march import Steps, march
from .output import Start, Trajectory


_DOTS = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_NAMED = jax.checkpoint_policies.save_only_these_names(*RESIDUALS)


# Not `save_from_both_policies`, whose result cannot be pickled.
def save_products(primitive: Any, *args: Any, **params: Any) -> bool:
    """A checkpoint policy: saves products of states and weights, and means of attention."""
    return _DOTS(primitive, *args, **params) or _NAMED(primitive, *args, **params)


class AbstractGradient(eqx.Module):
    """A gradient mode: stores some values of a solve and recomputes the others. All modes give
    the gradient of the discrete solution."""

    def adjoint(self) -> diffrax.AbstractAdjoint:
        """The diffrax adjoint for adaptive steps inside an interval."""
        return diffrax.RecursiveCheckpointAdjoint()

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """`lax.scan` over the intervals; by default stores all values."""
        return lax.scan(interval, carry, xs)

    def march(self, steps: Steps, start: Start) -> Trajectory:
        """A march of fixed steps; by default uses the `scan` of this mode."""
        return march(steps, start, self.scan)


@checked
class Direct(AbstractGradient):
    """Stores every intermediate value. Adaptive solves then have forward mode (`jax.jvp`) too,
    except by implicit schemes."""

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.DirectAdjoint()


@checked
class Recompute(AbstractGradient):
    """Stores one state per interval and the values that `policy` saves inside, and recomputes
    the rest.

    **Arguments:** `policy`, one of `jax.checkpoint_policies`. The default saves products of
    states and weights, and means of attention. `None` saves nothing: less memory, one more
    solve.
    """

    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        return lax.scan(body, carry, xs)


@checked
class Recursive(AbstractGradient):
    """Recursive checkpointing: stores the state at the beginning of each segment of depth. When
    the gradient reaches a segment, it solves the segment again, in shorter segments.

    With L intervals it stores about `levels L^(1/levels)` states and makes `levels - 1` more
    solves than `Recompute`, which has one level. Memory is logarithmic for `levels = log2 L`.
    Reference: Griewank, Optim. Methods Softw. 1 (1992); Chen et al., arXiv 1604.06174.

    **Arguments:**

    - `levels`: levels of nested segments; 2 stores about `2 sqrt(L)` states.
    - `policy`: selects the values saved inside an interval, see `Recompute`.
    """

    levels: PositiveInt = eqx.field(static=True, default=2)
    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        # More levels than there are halvings of the depth change nothing.
        halvings = jax.tree.leaves(xs)[0].shape[0].bit_length()
        return _scan(body, carry, xs, min(self.levels, halvings))


def _scan(body: Callable, carry: PyTree, xs: PyTree, levels: int) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, xs)` in nested segments, whose first carries are stored."""
    total = jax.tree.leaves(xs)[0].shape[0]

    def num_stored(length: int) -> float:
        inside = (levels - 1) * length ** (1 / max(levels - 1, 1))
        return total // length + inside + (4 if total % length else 0)

    length = min(range(1, total + 1), key=num_stored)
    if levels == 1 or length == 1:
        return lax.scan(body, carry, xs)

    def segment(carry, xs):
        return _scan(body, carry, xs, levels - 1)

    segment = jax.checkpoint(segment, policy=None, prevent_cse=False)
    end = total - total % length
    segments = jax.tree.map(lambda x: x[:end].reshape(-1, length, *x.shape[1:]), xs)
    carry, ys = lax.scan(segment, carry, segments)
    ys = jax.tree.map(lambda y: y.reshape(end, *y.shape[2:]), ys)
    if end == total:
        return carry, ys
    carry, last = segment(carry, jax.tree.map(lambda x: x[end:], xs))
    return carry, jax.tree.map(lambda y, rest: jnp.concatenate([y, rest]), ys, last)
