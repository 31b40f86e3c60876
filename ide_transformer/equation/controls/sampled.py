from typing import ClassVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..depth import Depth
from ..operators import Dropout
from .control import AbstractControl, locate


class Sampled(AbstractControl):
    """A control with one draw of its random operators in each interval.

    Each `Dropout` of a block gets a key of its own, fixed over the interval: every stage
    of a step sees the same field, so the equation stays an ordinary one and schemes keep
    their order.

    **Arguments:**

    - `control`: the control whose blocks hold `Dropout` operators.
    - `key`: the source of the draws.
    """

    control: AbstractControl
    key: PRNGKeyArray

    continuous: ClassVar[bool] = False

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
        return self.control.intervals(), jax.random.split(self.key, self.num_intervals)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        interval, key = interval
        return _with_key(self.control.local(interval, s), key)

    def __call__(self, t: Depth) -> PyTree:
        index, _ = locate(self, t)
        return _with_key(self.control(t), jax.random.split(self.key, self.num_intervals)[index])

    def tabulate(self, fractions: np.ndarray) -> "Sampled":
        return type(self)(self.control.tabulate(fractions), self.key)

    def resample(self, num_intervals: int) -> "Sampled":
        return type(self)(self.control.resample(num_intervals), self.key)


def _with_key(block: PyTree, key: PRNGKeyArray) -> PyTree:
    def is_dropout(x):
        return isinstance(x, Dropout)

    leaves, structure = jax.tree.flatten(block, is_leaf=is_dropout)
    leaves = [
        eqx.tree_at(
            lambda x: x.key, leaf, jax.random.fold_in(key, i), is_leaf=lambda x: x is None
        )
        if is_dropout(leaf)
        else leaf
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, leaves)
