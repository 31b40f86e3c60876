from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...errors import InputError
from ..depth import Depth
from .control import AbstractControl, check_resample, check_stack, locate, stack_blocks, take


class PiecewiseLinear(AbstractControl):
    """Weights at the boundaries, linear between: `θ(t) = (1-s) θ_l + s θ_{l+1}`,
    `s = t - l`. θ is continuous, so schemes called by hand agree with `solve`.

    **Arguments:**

    - `knots`: a block whose arrays have a leading axis of length L + 1.
    - `interval_length`: depth of one interval.
    """

    knots: PyTree
    interval_length: float = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        if check_stack(self, self.knots) < 2:
            raise InputError(
                "PiecewiseLinear needs at least two knots, one at each end of an interval."
            )

    @property
    def num_intervals(self) -> int:
        return jax.tree.leaves(eqx.filter(self.knots, eqx.is_array))[0].shape[0] - 1

    def intervals(self) -> PyTree[Array]:
        arrays = eqx.filter(self.knots, eqx.is_array)
        left = jax.tree.map(lambda x: x[:-1], arrays)
        right = jax.tree.map(lambda x: x[1:], arrays)
        return left, right

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        left, right = interval
        # In this form both ends are met exactly.
        block = jax.tree.map(lambda a, b: ((1 - s) * a + s * b).astype(a.dtype), left, right)
        return eqx.combine(block, eqx.filter(self.knots, eqx.is_array, inverse=True))

    def __call__(self, t: Depth) -> PyTree:
        index, s = locate(self, t)
        return self.local(take(self.intervals(), index), s)

    def resample(self, num_intervals: int) -> "PiecewiseLinear":
        """Interpolates the knots: exact where the new boundaries include the old ones."""
        length = check_resample(self, num_intervals)
        depths = [length * j for j in range(num_intervals + 1)]
        knots = [eqx.filter(self(t), eqx.is_array) for t in depths]
        stacked = jax.tree.map(lambda *x: jax.numpy.stack(x), *knots)
        static = eqx.filter(self.knots, eqx.is_array, inverse=True)
        return type(self)(eqx.combine(stacked, static), length)

    @classmethod
    def build(
        cls,
        make_block: Callable[[PRNGKeyArray], PyTree],
        num_intervals: int,
        *,
        key: PRNGKeyArray,
    ) -> "PiecewiseLinear":
        return cls(stack_blocks(make_block, num_intervals + 1, key))
