"""Tensors of a checkpoint, which are read one at a time."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class StoredTensor(Protocol):
    """A tensor that is not read yet."""

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> np.ndarray:
        """Its numbers, which the caller may keep."""
        ...


class HeldTensor(NamedTuple):
    """A tensor that is in memory already."""

    array: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self) -> np.ndarray:
        return self.array
