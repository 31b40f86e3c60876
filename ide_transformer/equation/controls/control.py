"""The base class of controls, and weights per layer, per boundary, or shared."""

import abc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ...arguments import PositiveFloat, PositiveInt, checked
from ...errors import InputError
from ..arrays import Depth


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


# Draws the weights of one block.
MakeBlock: TypeAlias = Callable[[PRNGKeyArray], PyTree]


def stack_blocks(make_block: MakeBlock, num_blocks: int, key: PRNGKeyArray) -> PyTree:
    return eqx.filter_vmap(make_block)(jax.random.split(key, num_blocks))


def arrays_of(blocks: PyTree) -> PyTree[Array]:
    return eqx.filter(blocks, eqx.is_array)


def with_static(arrays: PyTree[Array], blocks: PyTree) -> PyTree:
    return eqx.combine(arrays, eqx.filter(blocks, eqx.is_array, inverse=True))


def take(blocks: PyTree, index: Int[Array, ""] | int) -> PyTree:
    def take_row(x):
        # Traces faster than `x[index]`.
        return lax.dynamic_index_in_dim(x, index, keepdims=False) if eqx.is_array(x) else x

    return jax.tree.map(take_row, blocks)


def combine(basis: Float[Array, "*points terms"], blocks: PyTree) -> PyTree:
    """`Σ_k φ_k Θ_k` at any number of points; integers come from the first block."""

    def combine_leaf(x):
        if eqx.is_inexact_array(x):
            return jnp.tensordot(basis.astype(x.dtype), x, axes=1)
        return jnp.broadcast_to(x[0], (*basis.shape[:-1], *x.shape[1:]))

    return with_static(jax.tree.map(combine_leaf, arrays_of(blocks)), blocks)


def stack_length(owner: eqx.Module, field: str, least: int = 1) -> int:
    """The length of the leading axis, which all arrays of a field must share."""
    arrays = arrays_of(getattr(owner, field))
    lengths = {jnp.shape(x)[:1] for x in jax.tree.leaves(arrays)}
    if len(lengths) != 1 or () in lengths or min(lengths) < (least,):
        name = type(owner).__name__
        raise InputError(
            f"{name}: the arrays of {field} must share a leading axis of depth, of length "
            f"{least} or more, got {eqx.tree_pformat(arrays, width=1000)}. Use {name}.build."
        )
    return lengths.pop()[0]


class AbstractControl(eqx.Module):
    """The control θ(t): the weights as a function of depth.

    Depth is counted in layers. `[0, T]` has `layers` intervals of `interval_length`;
    `T = layers` unless the control was resampled. A control yields a *block*: a tuple of
    operators, or of constraints. Controls that can be trained from scratch have a class method
    `build(make_block, layers, *, key)`, which calls `make_block(key)` for each block that it
    stores.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    layers: AbstractVar[int]
    interval_length: AbstractVar[float]
    # Whether θ(t) has no jumps between intervals.
    continuous: AbstractVar[bool]
    # The number of leading axes of each weight that run over depth.
    depth_axes: AbstractVar[int]

    @property
    def horizon(self) -> float:
        """T, in layers."""
        return self.layers * self.interval_length

    @abc.abstractmethod
    def intervals(self) -> PyTree[Array]:
        """The data of the intervals, stacked along a leading axis."""

    @abc.abstractmethod
    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        """The block at `s ∈ [0, 1]` inside one interval, a slice of `intervals()`."""

    def __call__(self, t: Depth) -> PyTree:
        """The block at depth `t`; at a boundary, of the interval that begins there."""
        index, s = locate(self, t)
        return self.local(take(self.intervals(), index), s)

    @abc.abstractmethod
    def resample(self, layers: PositiveInt) -> "AbstractControl":
        """Resamples θ on another number of intervals of `[0, T]`."""

    def extend(self, horizon: float) -> "AbstractControl":
        """Extends θ to `[0, horizon]` by more intervals, if θ is constant."""
        raise InputError(
            f"{type(self).__name__} has weights from depth 0 to {self.horizon:g} only; got "
            f"{horizon=:g}. Use Tied for other depths."
        )

    def tabulate(self, fractions: np.ndarray) -> "AbstractControl":
        """Evaluates a smooth θ in advance, for a march that only reads it at these fractions of
        each interval."""
        return self


def locate(control: AbstractControl, t: Depth) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The index of the interval at depth `t`, and `s ∈ [0, 1]` inside it."""
    t = jnp.asarray(t, jnp.result_type(t, float))
    indices = np.arange(control.layers)
    length = control.interval_length
    # A march rounds starts to the dtype of the state, `Equation.knots` does not; the smaller
    # value is right for both.
    single = indices.astype(t.dtype) * t.dtype.type(length)
    double = (indices * length).astype(t.dtype)
    starts = jnp.asarray(np.minimum(single, double))
    # Not `t // length`, which rounding may put into the previous interval.
    index = jnp.maximum(jnp.sum(starts <= t) - 1, 0)
    return index, (t - starts[index]) / length


def low_precision(control: AbstractControl, dtype: str) -> AbstractControl:
    """Casts the matrices of a control to another dtype; vectors keep theirs."""

    def cast(x):
        matrix = eqx.is_inexact_array(x) and x.ndim - control.depth_axes >= 2
        return x.astype(jnp.dtype(dtype)) if matrix else x

    return jax.tree.map(cast, control)


@checked
class PiecewiseConstant(AbstractControl):
    """Ordinary layers: `θ(t) = θ_l` for `t ∈ [l, l+1)`.

    θ jumps between layers. In `diffrax.diffeqsolve` a stage at the end of a step (Heun, Tsit5)
    reads the next layer; in `solve` it does not.

    **Arguments:**

    - `blocks`: a block whose arrays have a leading axis of length L, as from
      `equinox.filter_vmap(make_block)(keys)`.
    - `interval_length`: the depth of one interval.
    """

    blocks: PyTree
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = False
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        stack_length(self, "blocks")

    @property
    def layers(self) -> int:
        return stack_length(self, "blocks")

    def intervals(self) -> PyTree[Array]:
        return arrays_of(self.blocks)

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return with_static(interval, self.blocks)

    @checked
    def resample(self, layers: PositiveInt) -> "PiecewiseConstant":
        """Averages θ over each new interval, which is exact if the new boundaries include the
        old ones. Integers come from the beginning of the interval."""
        new_edges = np.arange(layers + 1) * self.layers
        old_edges = np.arange(self.layers + 1) * layers
        end = np.minimum(new_edges[1:, None], old_edges[None, 1:])
        start = np.maximum(new_edges[:-1, None], old_edges[None, :-1])
        # `[new, old]`: the fraction of a new interval that an old one covers.
        overlap = np.maximum(end - start, 0) / self.layers
        weights, rest = eqx.partition(self.blocks, eqx.is_inexact_array)
        first = np.argmax(overlap > 0, axis=1)
        rest = jax.tree.map(lambda x: x[first] if eqx.is_array(x) else x, rest)
        blocks = eqx.combine(rest, combine(jnp.asarray(overlap), weights))
        return type(self)(blocks, self.horizon / layers)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, layers: PositiveInt, *, key: PRNGKeyArray
    ) -> "PiecewiseConstant":
        """Draws a block for each interval."""
        return cls(stack_blocks(make_block, layers, key))


@checked
class PiecewiseLinear(AbstractControl):
    """Weights linear between the boundaries of layers: `θ(t) = (1-s) θ_l + s θ_{l+1}`,
    `s = t - l`. θ is continuous, so `diffrax.diffeqsolve` agrees with `solve`.

    **Arguments:**

    - `knots`: a block whose arrays have a leading axis of length L + 1.
    - `interval_length`: the depth of one interval.
    """

    knots: PyTree
    interval_length: PositiveFloat = eqx.field(static=True, default=1.0)

    continuous: ClassVar[bool] = True
    depth_axes: ClassVar[int] = 1

    def __check_init__(self):
        stack_length(self, "knots", least=2)

    @property
    def layers(self) -> int:
        return stack_length(self, "knots") - 1

    def intervals(self) -> PyTree[Array]:
        arrays = arrays_of(self.knots)
        starts = jax.tree.map(lambda x: x[:-1], arrays)
        ends = jax.tree.map(lambda x: x[1:], arrays)
        return starts, ends

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        start, end = interval

        def interpolate(a, b):
            # In this form both ends are exact.
            return ((1 - s) * a + s * b).astype(a.dtype) if eqx.is_inexact_array(a) else a

        return with_static(jax.tree.map(interpolate, start, end), self.knots)

    @checked
    def resample(self, layers: PositiveInt) -> "PiecewiseLinear":
        """Interpolates the knots, which is exact if the new boundaries include the old ones."""
        length = self.horizon / layers
        knots = [arrays_of(self(length * j)) for j in range(layers + 1)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *knots)
        return type(self)(with_static(stacked, self.knots), length)

    @classmethod
    @checked
    def build(
        cls, make_block: MakeBlock, layers: PositiveInt, *, key: PRNGKeyArray
    ) -> "PiecewiseLinear":
        """Draws a block for each boundary."""
        return cls(stack_blocks(make_block, layers + 1, key))


# Depths in float32 are exact up to here.
_MOST_INTERVALS = 2**23


@checked
class Tied(AbstractControl):
    """One block at every depth, `θ(t) = θ`: an autonomous equation (ALBERT, looped and
    universal Transformers).

    **Arguments:**

    - `block`: the block, without a depth axis.
    - `layers`, `interval_length`: L, and the depth of one interval.
    """

    block: PyTree
    layers: PositiveInt = eqx.field(static=True)
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
    def resample(self, layers: PositiveInt) -> "Tied":
        return type(self)(self.block, layers, self.horizon / layers)

    def extend(self, horizon: float) -> "Tied":
        length = self.interval_length
        layers = round(horizon / length) if math.isfinite(horizon) else 0
        is_multiple = math.isclose(layers * length, horizon, rel_tol=1e-6)
        if not is_multiple or not 1 <= layers <= _MOST_INTERVALS:
            raise InputError(
                f"Tied.extend: horizon={horizon:g} must be 1 to {_MOST_INTERVALS:,} times the "
                f"interval length {length:g}."
            )
        return type(self)(self.block, layers, length)

    @classmethod
    @checked
    def build(cls, make_block: MakeBlock, layers: PositiveInt, *, key: PRNGKeyArray) -> "Tied":
        """Draws one block."""
        return cls(make_block(key), layers)
