from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..depth import Depth
from .control import AbstractControl, check_resample, check_stack, locate, stack_blocks, take


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
    interval_length: float = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = False
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        check_stack(self, self.blocks)

    @property
    def num_intervals(self) -> int:
        return jax.tree.leaves(eqx.filter(self.blocks, eqx.is_array))[0].shape[0]

    def intervals(self) -> PyTree[Array]:
        return eqx.filter(self.blocks, eqx.is_array)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return eqx.combine(interval, eqx.filter(self.blocks, eqx.is_array, inverse=True))

    def __call__(self, t: Depth) -> PyTree:
        index, _ = locate(self, t)
        return take(self.blocks, index)

    def resample(self, num_intervals: int) -> "PiecewiseConstant":
        """Averages θ over each new interval: exact where the new boundaries include the
        old ones, and where neighbouring layers merge, their mean."""
        length = check_resample(self, num_intervals)
        average = _overlap(num_intervals, self.num_intervals)
        resampled = jax.tree.map(
            lambda x: (
                jnp.tensordot(average.astype(x.dtype), x, axes=1)
                if eqx.is_inexact_array(x)
                else x
            ),
            self.blocks,
        )
        return type(self)(resampled, length)

    @classmethod
    def build(
        cls,
        make_block: Callable[[PRNGKeyArray], PyTree],
        num_intervals: int,
        *,
        key: PRNGKeyArray,
    ) -> "PiecewiseConstant":
        return cls(stack_blocks(make_block, num_intervals, key))


def _overlap(new: int, old: int) -> np.ndarray:
    """`[new, old]`: the fraction of each new interval that lies in each old one."""
    edges_new = np.arange(new + 1) * old
    edges_old = np.arange(old + 1) * new
    end = np.minimum(edges_new[1:, None], edges_old[None, 1:])
    start = np.maximum(edges_new[:-1, None], edges_old[None, :-1])
    return np.maximum(end - start, 0) / old
