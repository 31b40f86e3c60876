from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...errors import InputError
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
    num_intervals: int = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 0

    def __check_init__(self):
        if self.num_intervals < 1:
            raise InputError(f"Tied needs at least one interval, not {self.num_intervals}.")

    def intervals(self) -> PyTree[Array]:
        return ()

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self.block

    def __call__(self, t: Depth) -> PyTree:
        return self.block

    def resample(self, num_intervals: int) -> "Tied":
        return type(self)(self.block, num_intervals, check_resample(self, num_intervals))

    @classmethod
    def build(cls, make_block: MakeBlock, num_intervals: int, *, key: PRNGKeyArray) -> "Tied":
        """Draws one block."""
        return cls(make_block(key), num_intervals)
