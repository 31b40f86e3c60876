from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...arguments import PositiveInt, checked
from ...errors import InputError
from ..shapes import Depth
from .control import AbstractControl, IntervalLength, check_resample
from .stack import MakeBlock, arrays_of, check_stack, stack_blocks, with_static


class PiecewiseLinear(AbstractControl):
    """Weights at the boundaries, linear between: `θ(t) = (1-s) θ_l + s θ_{l+1}`,
    `s = t - l`. θ is continuous, so schemes called by hand agree with `solve`.

    **Arguments:**

    - `knots`: a block whose arrays have a leading axis of length L + 1.
    - `interval_length`: depth of one interval.
    """

    knots: PyTree
    interval_length: IntervalLength = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        if check_stack(self, self.knots) < 2:
            raise InputError(
                "PiecewiseLinear needs at least two knots, one at each end of an interval."
            )

    @property
    def num_intervals(self) -> int:
        return check_stack(self, self.knots) - 1

    def intervals(self) -> PyTree[Array]:
        arrays = arrays_of(self.knots)
        left = jax.tree.map(lambda x: x[:-1], arrays)
        right = jax.tree.map(lambda x: x[1:], arrays)
        return left, right

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        left, right = interval

        def between(a, b):
            # In this form both ends are met exactly. Integers have nothing between them.
            return ((1 - s) * a + s * b).astype(a.dtype) if eqx.is_inexact_array(a) else a

        return with_static(jax.tree.map(between, left, right), self.knots)

    def resample(self, num_intervals: int) -> "PiecewiseLinear":
        """Interpolates the knots: exact where the new boundaries include the old ones."""
        length = check_resample(self, num_intervals)
        knots = [arrays_of(self(length * j)) for j in range(num_intervals + 1)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *knots)
        return type(self)(with_static(stacked, self.knots), length)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, num_intervals: PositiveInt, *, key: PRNGKeyArray
    ) -> "PiecewiseLinear":
        """Draws a block for each boundary."""
        return cls(stack_blocks(make_block, num_intervals + 1, key))
