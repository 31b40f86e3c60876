"""Controls with weights for each layer, for each boundary, or for all."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...arguments import PositiveFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import Depth
from .control import (
    AbstractControl,
    MakeBlock,
    arrays_of,
    combine,
    stack_blocks,
    stack_length,
    with_static,
)


class PiecewiseConstant(AbstractControl):
    """Ordinary layers: `θ(t) = θ_l` for `t ∈ [l, l+1)`.

    θ jumps at every boundary. Schemes with a stage at the end of the step (Heun, Tsit5)
    called by hand on `[0, L]` read the next layer there; `solve` does not.

    **Arguments:**

    - `blocks`: a block whose arrays have a leading axis of length L, as made by
      `equinox.filter_vmap(make_block)(keys)`.
    - `interval_length`: depth of one interval.
    """

    blocks: PyTree
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = False
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        stack_length(self, "blocks")

    @property
    def num_intervals(self) -> int:
        return stack_length(self, "blocks")

    def intervals(self) -> PyTree[Array]:
        return arrays_of(self.blocks)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return with_static(interval, self.blocks)

    @checked
    def resample(self, num_intervals: PositiveInt) -> "PiecewiseConstant":
        """Averages θ over each new interval: exact where the new boundaries include the
        old ones, and where neighbouring layers merge, their mean. Whole numbers are those at
        its beginning."""
        average = _overlap(num_intervals, self.num_intervals)
        whole, rest = eqx.partition(self.blocks, lambda x: not eqx.is_inexact_array(x))
        first = np.argmax(average > 0, axis=1)
        whole = jax.tree.map(lambda x: x[first] if eqx.is_array(x) else x, whole)
        blocks = eqx.combine(whole, combine(jnp.asarray(average), rest))
        return type(self)(blocks, self.horizon / num_intervals)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, num_intervals: PositiveInt, *, key: PRNGKeyArray
    ) -> "PiecewiseConstant":
        """Draws a block for each interval."""
        return cls(stack_blocks(make_block, num_intervals, key))


def _overlap(new: int, old: int) -> np.ndarray:
    """`[new, old]`: the fraction of each new interval that each old one covers."""
    edges_new = np.arange(new + 1) * old
    edges_old = np.arange(old + 1) * new
    end = np.minimum(edges_new[1:, None], edges_old[None, 1:])
    start = np.maximum(edges_new[:-1, None], edges_old[None, :-1])
    return np.maximum(end - start, 0) / old


class PiecewiseLinear(AbstractControl):
    """Weights at the boundaries, linear between: `θ(t) = (1-s) θ_l + s θ_{l+1}`,
    `s = t - l`. θ is continuous, so schemes called by hand agree with `solve`.

    **Arguments:**

    - `knots`: a block whose arrays have a leading axis of length L + 1.
    - `interval_length`: depth of one interval.
    """

    knots: PyTree
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        if self.num_intervals < 1:
            raise InputError("PiecewiseLinear: knots are too few; give two or more.")

    @property
    def num_intervals(self) -> int:
        return stack_length(self, "knots") - 1

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

    @checked
    def resample(self, num_intervals: PositiveInt) -> "PiecewiseLinear":
        """Interpolates the knots: exact where the new boundaries include the old ones."""
        length = self.horizon / num_intervals
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
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 0

    def intervals(self) -> PyTree[Array]:
        return ()

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self.block

    def __call__(self, t: Depth) -> PyTree:
        return self.block

    @checked
    def resample(self, num_intervals: PositiveInt) -> "Tied":
        return type(self)(self.block, num_intervals, self.horizon / num_intervals)

    def extend(self, horizon: float) -> "Tied":
        length = self.interval_length
        number = round(horizon / length) if math.isfinite(horizon) else 0
        whole = math.isclose(number * length, horizon, rel_tol=1e-6)
        if not whole or not 1 <= number <= _MOST_INTERVALS:
            raise InputError(
                f"Tied.extend({horizon:g}): give a multiple of the length of its intervals, "
                f"{length:g}, for example {min(max(number, 1), _MOST_INTERVALS) * length:g}; "
                f"depth in float32 can tell at most {_MOST_INTERVALS:,} steps apart."
            )
        return type(self)(self.block, number, length)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, num_intervals: PositiveInt, *, key: PRNGKeyArray
    ) -> "Tied":
        """Draws one block."""
        return cls(make_block(key), num_intervals)
