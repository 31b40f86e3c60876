from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
from jax import lax
from jaxtyping import PyTree

from ...equation import RESIDUALS
from ..march import Steps, march
from ..output import Start
from ..trajectory import Trajectory


_DOTS = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
_NAMED = jax.checkpoint_policies.save_only_these_names(*RESIDUALS)


# A function of its own, since a policy that JAX joins of two others cannot be pickled.
def save_products(primitive: Any, *args: Any, **params: Any) -> bool:
    """The policy that saves the products of states with weights and the means of attention.
    On a processor whose backward pass is bound by memory traffic that is both smaller and
    faster than to keep everything."""
    return _DOTS(primitive, *args, **params) or _NAMED(primitive, *args, **params)


class AbstractGradient(eqx.Module):
    """A gradient mode: the values that are kept on the way forward; the others are computed
    again. Each gives the gradient of the discrete solution.

    A mode brings the march of fixed steps. For adaptive ones it gives the adjoint of diffrax
    inside an interval, and the scan over the intervals.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    def adjoint(self) -> diffrax.AbstractAdjoint:
        """The adjoint for adaptive steps inside one interval; by default it recomputes."""
        return diffrax.RecursiveCheckpointAdjoint()

    def scan(self, interval: Callable, carry: PyTree, xs: PyTree) -> tuple[PyTree, PyTree]:
        """`jax.lax.scan` over the intervals, keeping the values of this mode; by default
        everything."""
        return lax.scan(interval, carry, xs)

    def march(self, steps: Steps, start: Start) -> Trajectory:
        """The march of fixed steps; by default the `scan` of this mode over the intervals."""
        return march(steps, start, self.scan)
