"""The base class of controls that change the blocks of another one."""

import abc
from dataclasses import replace

import numpy as np
from jaxtyping import Array, PyTree

from ..shapes import Depth
from .control import AbstractControl


class AbstractWrappedControl(AbstractControl):
    """A control that changes the blocks of another one, on the same intervals."""

    control: AbstractControl

    @abc.abstractmethod
    def __call__(self, t: Depth) -> PyTree: ...

    @property
    def continuous(self) -> bool:
        return self.control.continuous

    @property
    def depth_axes(self) -> int:
        return self.control.depth_axes

    @property
    def interval_length(self) -> float:
        return self.control.interval_length

    @property
    def num_intervals(self) -> int:
        return self.control.num_intervals

    def intervals(self) -> PyTree[Array]:
        return self.control.intervals()

    def tabulate(self, fractions: np.ndarray) -> "AbstractWrappedControl":
        return replace(self, control=self.control.tabulate(fractions))

    def resample(self, num_intervals: int) -> "AbstractWrappedControl":
        return replace(self, control=self.control.resample(num_intervals))
