from typing import NamedTuple

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..models import Model


class DepthProfile(NamedTuple):
    """Root mean squares, over tokens and features, along the solution of a model.

    - `depths`: the boundaries of the intervals.
    - `state`: of the state there.
    - `increment`: of what each interval adds to it.
    """

    depths: Float[Array, " depths"]
    state: Float[Array, " depths"]
    increment: Float[Array, " intervals"]


def depth_profile(model: Model, inputs: PyTree) -> DepthProfile:
    """The profile of a batch of inputs."""
    knots = jnp.asarray(model.equation.knots)
    us = model.solve(inputs, saveat=diffrax.SaveAt(ts=knots)).us
    axes = tuple(range(1, us.ndim))
    return DepthProfile(
        knots,
        jnp.sqrt(jnp.mean(us**2, axes)),
        jnp.sqrt(jnp.mean(jnp.diff(us, axis=0) ** 2, axes)),
    )
