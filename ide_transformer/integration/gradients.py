"""Gradient modes: the values kept for the gradient; the others are computed again."""

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


# A function of its own, since a policy that JAX joins of two others cannot be pickled.
def save_products(primitive: Any, *args: Any, **params: Any) -> bool:
    """The policy that saves products of states with weights and means of attention."""
    return _DOTS(primitive, *args, **params) or _NAMED(primitive, *args, **params)


class AbstractGradient(eqx.Module):
    """A gradient mode: the values that are kept on the way forward; the others are computed
    again. Each but `Truncated` gives the gradient of the discrete solution. A mode brings the
    march of fixed steps; for adaptive ones the adjoint of diffrax inside an interval, and the
    scan over them.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    def adjoint(self) -> diffrax.AbstractAdjoint:
        """The adjoint for adaptive steps inside an interval; by default it recomputes."""
        return diffrax.RecursiveCheckpointAdjoint()

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """`lax.scan` over the intervals, keeping the values of this mode, by default all."""
        return lax.scan(interval, carry, xs)

    def march(self, steps: Steps, start: Start) -> Trajectory:
        """The march of fixed steps; by default the `scan` of this mode over the intervals."""
        return march(steps, start, self.scan)


@checked
class Direct(AbstractGradient):
    """Keep every intermediate value. Adaptive solves then also allow forward mode."""

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return diffrax.DirectAdjoint()


@checked
class Recompute(AbstractGradient):
    """Keep one state for each interval and the values that `policy` saves inside; recompute
    the rest.

    **Arguments:**

    - `policy`: one of `jax.checkpoint_policies`; the default saves the products of states
      with weights and the means of attention, `None` saves nothing inside: less memory, one
      solve more.
    """

    policy: Callable | None = eqx.field(static=True, default=save_products)

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        body = jax.checkpoint(interval, policy=self.policy, prevent_cse=False)
        return lax.scan(body, carry, xs)


@checked
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
    """Truncated back-propagation: the gradient of the last intervals of depth alone, the state
    before them held fixed. What the gradient takes, in memory and time, does not grow with T.
    Earlier layers with weights of their own are never trained.

    It is not the gradient of the discrete solution. Of one interval, at the fixed point
    `u = Φ(u)` of a loop, it puts 1 in the place of `(1 - ∂Φ/∂u)⁻¹`. Reference: Fung et al.,
    arXiv 2103.12803; Geng et al., arXiv 2111.05177.

    **Arguments:**

    - `intervals`: how many, the last ones.
    - `mode`: the gradient mode of these.
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
    """An adjoint of diffrax, for adaptive steps alone."""

    wrapped: diffrax.AbstractAdjoint

    configurable = False

    def __check_init__(self):
        if isinstance(self.wrapped, diffrax.BacksolveAdjoint):
            raise InputError(
                "solve: BacksolveAdjoint solves the state backwards, which is wrong for "
                "layered weights, where the field jumps; use gradient=Recompute() or Direct()."
            )

    def adjoint(self) -> diffrax.AbstractAdjoint:
        return self.wrapped

    def march(self, steps: Steps, start: Start) -> Trajectory:
        raise InputError(
            f"solve: gradient={type(self.wrapped).__name__}() is for adaptive steps; fixed "
            "steps march by a scan: use gradient=Recompute(), Recursive() or Direct()."
        )


def as_gradient(gradient: AbstractGradient | diffrax.AbstractAdjoint) -> AbstractGradient:
    """A gradient mode, or the one that an adjoint of diffrax stands for."""
    if isinstance(gradient, diffrax.AbstractAdjoint):
        return DiffraxAdjoint(gradient)
    return gradient
