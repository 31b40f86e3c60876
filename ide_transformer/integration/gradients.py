"""Gradient modes: which values a solve keeps for the gradient."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from ..arguments import PositiveInt, checked
from ..equation import RESIDUALS
from ..errors import InputError
from .march import Steps, march
from .output import Start, Trajectory


_DOTS = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_NAMED = jax.checkpoint_policies.save_only_these_names(*RESIDUALS)


# A plain function, since JAX cannot pickle a policy joined from two others.
def save_products(primitive: Any, *args: Any, **params: Any) -> bool:
    """A checkpoint policy: saves products of states with weights, and means of attention."""
    return _DOTS(primitive, *args, **params) or _NAMED(primitive, *args, **params)


class AbstractGradient(eqx.Module):
    """A gradient mode: decides which values are kept, and recomputes the others. All modes
    except `Truncated` give the gradient of the discrete solution.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    def adjoint(self) -> diffrax.AbstractAdjoint:
        """The adjoint of diffrax for adaptive steps inside an interval."""
        return diffrax.RecursiveCheckpointAdjoint()

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """`lax.scan` over the intervals, by default keeping all values."""
        return lax.scan(interval, carry, xs)

    def march(self, steps: Steps, start: Start) -> Trajectory:
        """The march of fixed steps, by default with the `scan` of this mode."""
        return march(steps, start, self.scan)


@checked
class Direct(AbstractGradient):
    """Keeps every intermediate value. Adaptive solves then have forward mode (`jax.jvp`) too;
    implicit schemes and `Reversible` never have it."""

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.DirectAdjoint()


@checked
class Recompute(AbstractGradient):
    """Keeps a state for each interval and the values that `policy` saves inside; recomputes the
    rest.

    **Arguments:** `policy`, one of `jax.checkpoint_policies`. The default saves products of
    states with weights and means of attention. `None` saves nothing: less memory, one more
    solve.
    """

    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        return lax.scan(body, carry, xs)


@checked
class Recursive(AbstractGradient):
    """Recursive checkpointing: keeps states at the ends of segments of depth, and solves a
    segment again, by the same rule, when the gradient reaches it.

    With L intervals it keeps about `levels L^(1/levels)` states and makes `levels - 1` more
    solves than `Recompute`, its case of one level. Memory is logarithmic for `levels = log2 L`.
    Reference: Griewank, Optim. Methods Softw. 1 (1992); Chen et al., arXiv 1604.06174.

    **Arguments:**

    - `levels`: of nested segments; 2 keeps about `2 sqrt(L)` states.
    - `policy`: the values saved inside an interval; see `Recompute`.
    """

    levels: PositiveInt = eqx.field(static=True, default=2)
    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        # More levels than halvings of the depth change nothing.
        halvings = jax.tree.leaves(xs)[0].shape[0].bit_length()
        return _scan(body, carry, xs, min(self.levels, halvings))


def _scan(body: Callable, carry: PyTree, xs: PyTree, levels: int) -> tuple[PyTree, PyTree]:
    """`lax.scan(body, carry, xs)` in nested segments, whose ends the gradient keeps."""
    number = jax.tree.leaves(xs)[0].shape[0]

    def states_kept(length: int) -> float:
        below = (levels - 1) * length ** (1 / max(levels - 1, 1))
        return number // length + below + (4 if number % length else 0)

    length = min(range(1, number + 1), key=states_kept)
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


@checked
class Truncated(AbstractGradient):
    """Truncated back-propagation: the gradient of the last intervals only, with the state
    before them fixed. Memory and time do not grow with T. Earlier layers with weights of their
    own are never trained.

    It is not the gradient of the discrete solution. With one interval, at the fixed point
    `u = Φ(u)` of a loop, it replaces `(1 - ∂Φ/∂u)⁻¹` by 1. Reference: Fung et al., arXiv
    2103.12803; Geng et al., arXiv 2111.05177.

    **Arguments:** the number of last `intervals`, and their gradient `mode`.
    """

    intervals: PositiveInt = eqx.field(static=True)
    mode: Direct | Recompute | Recursive = Recompute()

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return self.mode.adjoint()

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        before = jax.tree.leaves(xs)[0].shape[0] - self.intervals
        if before <= 0:
            return self.mode.scan(interval, carry, xs)
        first = jax.tree.map(lambda x: x[:before], xs)
        last = jax.tree.map(lambda x: x[before:], xs)
        carry, early = lax.stop_gradient(lax.scan(interval, carry, first))
        carry, ys = self.mode.scan(interval, carry, last)
        return carry, jax.tree.map(lambda *y: jnp.concatenate(y), early, ys)


class DiffraxAdjoint(AbstractGradient):
    """An adjoint of diffrax, for adaptive steps."""

    wrapped: diffrax.AbstractAdjoint

    configurable = False

    def __check_init__(self):
        if isinstance(self.wrapped, diffrax.BacksolveAdjoint):
            raise InputError(
                "solve: BacksolveAdjoint solves backwards, which is wrong if the field jumps "
                "between layers; use gradient=Recompute()."
            )

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return self.wrapped

    def march(self, steps: Steps, start: Start) -> Trajectory:
        raise InputError(
            f"solve: {type(self.wrapped).__name__}() is for adaptive steps; use Recompute()."
        )


def as_gradient(gradient: AbstractGradient | diffrax.AbstractAdjoint) -> AbstractGradient:
    if isinstance(gradient, diffrax.AbstractAdjoint):
        return DiffraxAdjoint(gradient)
    return gradient
