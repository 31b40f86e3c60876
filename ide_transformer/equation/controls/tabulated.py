from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ...errors import InputError
from ..shapes import Depth
from .control import AbstractControl
from .stack import arrays_of, check_stack, take, with_static


class Tabulated(AbstractControl):
    """A smooth control evaluated ahead of a march, at the depths that its steps will ask
    for: inside the loop a block is looked up, which costs the same as ordinary layers.

    **Arguments:**

    - `table`: a block whose arrays have two leading axes, interval and point.
    - `fractions`: the points of each interval, from 0 to 1. The point nearest to the depth
      that is asked for is taken.
    - `interval_length`: depth of one interval.
    """

    table: PyTree
    fractions: tuple[float, ...] = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    configurable: ClassVar[bool] = False
    # It stands for a control without jumps, whose points these are.
    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 2

    @property
    def num_intervals(self) -> int:
        return check_stack(self, self.table)

    def intervals(self) -> PyTree[Array]:
        return arrays_of(self.table)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        points = jnp.asarray(np.array(self.fractions), jnp.result_type(float))
        nearest = 0 if len(points) == 1 else jnp.argmin(jnp.abs(points - s))
        return with_static(take(interval, nearest), self.table)

    def resample(self, num_intervals: int) -> "Tabulated":
        raise InputError(
            "Tabulated.resample: a table holds no other depths; resample the control that "
            "was tabulated."
        )
