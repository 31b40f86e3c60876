from dataclasses import replace
from typing import ClassVar

import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..operators.random_operator import AbstractRandomOperator
from ..shapes import Depth
from ..tree import map_parts
from .control import AbstractWrappedControl, locate


class Sampled(AbstractWrappedControl):
    """A control with one draw of its random operators in each interval.

    The draws of a block, of `Dropout` for example, are fixed over the interval: every stage
    of a step sees the same field, so the equation stays an ordinary one and schemes keep
    their order.

    **Arguments:**

    - `control`: the control whose blocks hold random operators.
    - `key`: makes the draws.
    """

    key: PRNGKeyArray

    configurable: ClassVar[bool] = False
    continuous: ClassVar[bool] = False

    def intervals(self) -> PyTree[Array]:
        return self.control.intervals(), jax.random.split(self.key, self.num_intervals)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        interval, key = interval
        return _with_key(self.control.local(interval, s), key)

    def __call__(self, t: Depth) -> PyTree:
        index, _ = locate(self, t)
        return _with_key(self.control(t), jax.random.split(self.key, self.num_intervals)[index])


def _with_key(block: PyTree, key: PRNGKeyArray) -> PyTree:
    def draw(operator: AbstractRandomOperator, place: int) -> AbstractRandomOperator:
        own = jax.random.fold_in(key, place)
        inside = _with_key(operator.operator, own)
        return replace(operator, operator=inside, key=key if operator.one_draw else own)

    return map_parts(block, AbstractRandomOperator, draw)
