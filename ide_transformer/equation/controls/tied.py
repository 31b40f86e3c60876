from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...arguments import PositiveFloat, PositiveInt, checked
from ..shapes import Depth
from .control import AbstractControl, check_resample
from .stack import MakeBlock


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
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

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

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, num_intervals: PositiveInt, *, key: PRNGKeyArray
    ) -> "Tied":
        """Draws one block."""
        return cls(make_block(key), num_intervals)
