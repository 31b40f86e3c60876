"""Units of channels: a model takes and gives its user's, and computes in deviations."""

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
# The arguments of models, and so the `sizes` of tasks, that the data of training decide, also
# for a model that is evaluated on other data.
STATISTICS = frozenset({"statistics", "output_statistics", "duration"})


@checked
def statistics(
    values: Float[np.ndarray, "samples ..."], *, channels: bool, name: str = "values"
) -> Statistics:
    """The mean and the standard deviation of each channel over samples and points, such as
    `((101325.0, 850.0), (0.2, 1.1))`. Give the training samples alone.

    A task puts them into its `sizes`, as `statistics` of the inputs and `output_statistics` of
    the targets. Then models take and give the units of the data, and a run keeps them.

    A channel that is constant up to rounding gets the standard deviation 1, with a warning.

    **Arguments:**

    - `values`: `[samples, *points]`, or `[samples, *points, channels]` with `channels`.
    - `name`: what the values are called in a warning.
    """
    by_channel = values.reshape(-1, values.shape[-1] if channels else 1)
    means = by_channel.mean(0, dtype=float)
    pieces = np.array_split(by_channel, 1 + by_channel.size // 2**22)
    squares = [np.sum((x - means) ** 2, 0) for x in pieces]
    deviations = np.sqrt(np.sum(squares, 0) / len(by_channel))
    rounding = 4 * np.finfo(values.dtype).eps * np.abs(by_channel).max(0)
    constant = deviations <= rounding
    for channel in np.flatnonzero(constant):
        where = f"channel {channel} of {name}" if channels else name
        said = f"{where}: all are {means[channel]:g} in training; they are not scaled"
        warnings.warn(said, stacklevel=2)
    return tuple(zip(means.tolist(), np.where(constant, 1.0, deviations).tolist(), strict=True))


def standardized(
    values: Float[Array, "*batch channels"], given: Statistics | None
) -> Float[Array, "*batch channels"]:
    """`(x - mean) / std` for each channel."""
    if given is None:
        return values
    means, scales = np.asarray(given).T
    return inverse_affine(values, jnp.asarray(scales), jnp.asarray(means))


def restored(
    values: Float[Array, "*batch channels"], given: Statistics | None
) -> Float[Array, "*batch channels"]:
    """`mean + std x` for each channel."""
    if given is None:
        return values
    means, scales = np.asarray(given).T
    return affine(values, jnp.asarray(scales), jnp.asarray(means))


def check_statistics(owner: object, given: Statistics | None, channels: int) -> None:
    """Raises `InputError` if there is not one pair for each channel."""
    if given is not None and len(given) != channels:
        what = f"{type(owner).__name__}: statistics of {len(given)} channels for {channels}"
        raise InputError(f"{what}; give (mean, standard deviation) for each.")
