import math
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...arguments import PositiveInt, checked
from ...errors import InputError
from ..shapes import Depth
from .control import AbstractControl, IntervalLength, check_resample
from .stack import MakeBlock


# Depths in float32 are exact up to here.
_MOST_INTERVALS = 2**23


class Tied(AbstractControl):
    """One block at every depth, `θ(t) = θ`: an autonomous equation (ALBERT, looped and
    universal Transformers).

    **Arguments:**

    - `block`: the block, without a depth axis.
    - `num_intervals`: L.
    - `interval_length`: depth of one interval.
    """

    block: PyTree
    num_intervals: PositiveInt = eqx.field(static=True)
    interval_length: IntervalLength = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 0

    def intervals(self) -> PyTree[Array]:
        return ()

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self.block

    def __call__(self, t: Depth) -> PyTree:
        return self.block

    def resample(self, num_intervals: int) -> "Tied":
        return type(self)(self.block, num_intervals, check_resample(self, num_intervals))

    def extend(self, horizon: float) -> "Tied":
        length = self.interval_length
        number = round(horizon / length) if math.isfinite(horizon) else 0
        if number < 1 or not math.isclose(number * length, horizon, rel_tol=1e-6):
            raise InputError(
                f"Tied.extend({horizon:g}): give a multiple of the length of its "
                f"intervals, {length:g}, for example {max(number, 1) * length:g}."
            )
        if number > _MOST_INTERVALS:
            raise InputError(
                f"Tied.extend({horizon:g}): depth in float32 can tell at most "
                f"{_MOST_INTERVALS:,} steps apart, and these are {number:,}."
            )
        return type(self)(self.block, number, length)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, num_intervals: PositiveInt, *, key: PRNGKeyArray
    ) -> "Tied":
        """Draws one block."""
        return cls(make_block(key), num_intervals)
