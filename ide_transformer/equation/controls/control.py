"""What a control is."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from ...errors import InputError
from ..depth import Depth


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractControl(eqx.Module):
    """The control θ(t): the weights as a function of depth.

    Depth is counted in layers and runs over `[0, T]`, divided into `num_intervals`
    intervals of `interval_length`; `T = num_intervals` unless the control was resampled.
    What a control yields is a *block*: a tuple of operators, or of constraints.

    A control that can be trained from scratch also has a class method
    `build(make_block, num_intervals, *, key)`, which calls `make_block(key)` once for each
    place where it keeps weights of its own.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True

    num_intervals: AbstractVar[int]
    interval_length: AbstractVar[float]
    # Whether θ(t) has no jumps at the interval boundaries.
    continuous: AbstractVar[bool]
    # Leading axes of each stored weight that run over depth.
    depth_axes: AbstractVar[int]

    @abc.abstractmethod
    def intervals(self) -> PyTree[Array]:
        """What each interval needs of its own, stacked: leading axis = interval."""

    @abc.abstractmethod
    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        """The block inside one interval, given its slice of `intervals()`, at `s ∈ [0, 1]`."""

    @abc.abstractmethod
    def __call__(self, t: Depth) -> PyTree:
        """The block at depth `t`; at a boundary, that of the interval which begins there."""

    @abc.abstractmethod
    def resample(self, num_intervals: int) -> "AbstractControl":
        """The same θ over the same `[0, T]` on another number of intervals."""

    def tabulate(self, fractions: np.ndarray) -> "AbstractControl":
        """This control made ready for a march that will ask for θ at these fractions of
        each interval only: smooth controls are evaluated there, ahead of the loop."""
        return self


def stack_blocks(
    make_block: Callable[[PRNGKeyArray], PyTree], number: int, key: PRNGKeyArray
) -> PyTree:
    """`number` blocks made from as many keys, stacked along a leading axis."""
    return eqx.filter_vmap(make_block)(jax.random.split(key, number))


def locate(control: AbstractControl, t: Depth) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The index of the interval that holds depth `t`, and `s ∈ [0, 1]` inside it."""
    position = jnp.asarray(t) / control.interval_length
    index = jnp.clip(jnp.floor(position), 0, control.num_intervals - 1)
    return index.astype(int), position - index


def take(blocks: PyTree, index: Int[Array, ""] | int) -> PyTree:
    """One block of a stack."""

    def one(x):
        # Traced in a fraction of the time of `x[index]`.
        return lax.dynamic_index_in_dim(x, index, keepdims=False) if eqx.is_array(x) else x

    return jax.tree.map(one, blocks)


def check_stack(control: AbstractControl, blocks: PyTree) -> int:
    """The length of the leading axis that all arrays of `blocks` share.

    **Raises:** `InputError` where they do not share one.
    """
    named = [
        (jax.tree_util.keystr(path), jnp.shape(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(blocks, eqx.is_array))
    ]
    lengths = {shape[:1] for _, shape in named}
    if len(lengths) != 1 or () in lengths:
        shapes = ", ".join(f"{name}: {shape}" for name, shape in named) or "no arrays at all"
        raise InputError(
            f"{type(control).__name__} needs blocks whose arrays all have the depth as "
            f"leading axis, but got {shapes}. Build them with equinox.filter_vmap over "
            f"keys, or with {type(control).__name__}.build."
        )
    return lengths.pop()[0]


def check_resample(control: AbstractControl, num_intervals: int) -> float:
    """The interval length that keeps `T` with another number of intervals."""
    if num_intervals < 1:
        raise InputError(
            f"{type(control).__name__}.resample({num_intervals}): a control needs at least "
            "one interval."
        )
    return control.interval_length * control.num_intervals / num_intervals
