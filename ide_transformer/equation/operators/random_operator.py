from typing import ClassVar

import equinox as eqx
from jaxtyping import PRNGKeyArray

from ...arguments import Fraction
from .operator import AbstractWrappedOperator


class AbstractRandomOperator(AbstractWrappedOperator):
    """An operator that changes the rate of another one at random.

    The draw is a function of the key alone, so every stage of a step sees the same field.
    `Sampled` gives a key to each interval.
    """

    rate: Fraction = eqx.field(static=True)
    key: PRNGKeyArray | None = None

    configurable: ClassVar[bool] = False
    # Whether all operators of a block have the same draw.
    one_draw: ClassVar[bool] = False
