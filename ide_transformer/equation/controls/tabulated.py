from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ...errors import InputError
from ..depth import Depth
from .control import AbstractControl, locate, take


class Tabulated(AbstractControl):
    """A smooth control evaluated ahead of a march, at the depths that its steps will ask
    for: inside the loop a block is looked up, which costs the same as ordinary layers.

    **Arguments:**

    - `table`: a block whose arrays have two leading axes, interval and point.
    - `fractions`: where the points lie in each interval, from 0 to 1; the nearest one to
      the depth asked for is taken.
    - `interval_length`: depth of one interval.
    """

    table: PyTree
    fractions: tuple[float, ...] = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    # It stands for a control without jumps, whose points these are.
    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 2

    @property
    def num_intervals(self) -> int:
        return jax.tree.leaves(eqx.filter(self.table, eqx.is_array))[0].shape[0]

    def intervals(self) -> PyTree[Array]:
        return eqx.filter(self.table, eqx.is_array)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        points = jnp.asarray(np.array(self.fractions), jnp.result_type(float))
        nearest = 0 if len(points) == 1 else jnp.argmin(jnp.abs(points - s))
        block = take(interval, nearest)
        return eqx.combine(block, eqx.filter(self.table, eqx.is_array, inverse=True))

    def __call__(self, t: Depth) -> PyTree:
        index, s = locate(self, t)
        return self.local(take(self.intervals(), index), s)

    def resample(self, num_intervals: int) -> "Tabulated":
        raise InputError(
            "Tabulated.resample: a table holds no other depths; resample the control that "
            "was tabulated."
        )
