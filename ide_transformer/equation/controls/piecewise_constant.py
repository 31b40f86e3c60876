from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...arguments import PositiveInt, checked
from ..shapes import Depth
from .control import AbstractControl, IntervalLength, check_resample
from .stack import MakeBlock, arrays_of, check_stack, combine, stack_blocks, with_static


class PiecewiseConstant(AbstractControl):
    """Ordinary layers: `θ(t) = θ_l` for `t ∈ [l, l+1)`.

    θ jumps at every boundary. Schemes with a stage at the end of the step (Heun, Tsit5)
    called by hand on `[0, L]` read the next layer there; `solve` does not.

    **Arguments:**

    - `blocks`: a block whose arrays have a leading axis of length L, as made by
      `equinox.filter_vmap(make_block)(keys)`.
    - `interval_length`: depth of one interval.
    """

    blocks: PyTree
    interval_length: IntervalLength = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = False
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        check_stack(self, self.blocks)

    @property
    def num_intervals(self) -> int:
        return check_stack(self, self.blocks)

    def intervals(self) -> PyTree[Array]:
        return arrays_of(self.blocks)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return with_static(interval, self.blocks)

    def resample(self, num_intervals: int) -> "PiecewiseConstant":
        """Averages θ over each new interval: exact where the new boundaries include the
        old ones, and where neighbouring layers merge, their mean. Whole numbers are those at
        its beginning."""
        length = check_resample(self, num_intervals)
        average = _overlap(num_intervals, self.num_intervals)
        first = np.argmax(average > 0, axis=1)

        def whole(mean, x):
            return x[first] if eqx.is_array(x) and not eqx.is_inexact_array(x) else mean

        means = combine(jnp.asarray(average), self.blocks)
        return type(self)(jax.tree.map(whole, means, self.blocks), length)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, num_intervals: PositiveInt, *, key: PRNGKeyArray
    ) -> "PiecewiseConstant":
        """Draws a block for each interval."""
        return cls(stack_blocks(make_block, num_intervals, key))


def _overlap(new: int, old: int) -> np.ndarray:
    """`[new, old]`: the fraction of each new interval that each old one covers."""
    edges_new = np.arange(new + 1) * old
    edges_old = np.arange(old + 1) * new
    end = np.minimum(edges_new[1:, None], edges_old[None, 1:])
    start = np.maximum(edges_new[:-1, None], edges_old[None, :-1])
    return np.maximum(end - start, 0) / old
