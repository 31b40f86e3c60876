"""Converts channels between the units of the data and standard deviations."""

import warnings
from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..arguments import PositiveFloat, checked
from ..equation import affine, inverse_affine
from ..errors import InputError


# The mean and the standard deviation of each channel in training.
Statistics: TypeAlias = tuple[tuple[float, PositiveFloat], ...]
# Arguments of models, in the `sizes` of tasks, that always come from the training data.
STATISTICS = frozenset({"statistics", "output_statistics", "duration"})


@checked
def statistics(
    values: Float[np.ndarray, "samples ..."], *, channels: bool, name: str = "values"
) -> Statistics:
    """The mean and the standard deviation of each channel over samples and points, such as
    `((101325.0, 850.0), (0.2, 1.1))`. Pass only training samples.

    A task has them in its `sizes`: `statistics` of the inputs, `output_statistics` of the
    targets. Then inputs and outputs of the model are in the units of the data. A channel that
    is constant up to rounding has the standard deviation 1, with a warning.

    **Arguments:**

    - `values`: `[samples, *points]`, or `[samples, *points, channels]` with `channels`.
    - `name`: the name of the values in the warning.
    """
    by_channel = values.reshape(-1, values.shape[-1] if channels else 1)
    means = by_channel.mean(0, dtype=float)
    pieces = np.array_split(by_channel, 1 + by_channel.size // 2**22)
    squares = [np.sum((x - means) ** 2, 0) for x in pieces]
    deviations = np.sqrt(np.sum(squares, 0) / len(by_channel))
    rounding = 4 * np.finfo(values.dtype).eps * np.abs(by_channel).max(0)
    constant = deviations <= rounding
    for channel in np.flatnonzero(constant):
        label = f"channel {channel} of {name}" if channels else name
        warnings.warn(
            f"{label}: always {means[channel]:g} in training, so not scaled", stacklevel=2
        )
    return tuple(zip(means.tolist(), np.where(constant, 1.0, deviations).tolist(), strict=True))


def standardize(
    values: Float[Array, "*batch channels"], by_channel: Statistics | None
) -> Float[Array, "*batch channels"]:
    """`(x - mean) / std` for each channel."""
    if by_channel is None:
        return values
    means, scales = np.asarray(by_channel).T
    return inverse_affine(values, jnp.asarray(scales), jnp.asarray(means))


def unstandardize(
    values: Float[Array, "*batch channels"], by_channel: Statistics | None
) -> Float[Array, "*batch channels"]:
    """`mean + std x` for each channel."""
    if by_channel is None:
        return values
    means, scales = np.asarray(by_channel).T
    return affine(values, jnp.asarray(scales), jnp.asarray(means))


def check_statistics(owner: object, by_channel: Statistics | None, channels: int) -> None:
    """Raises `InputError` unless there is a pair for each channel."""
    if by_channel is not None and len(by_channel) != channels:
        raise InputError(
            f"{type(owner).__name__}: statistics has {len(by_channel)} pairs, expected "
            f"{channels}; pass (mean, standard deviation) for each channel."
        )
