"""The layout of devices on which a program runs: how arrays lie on it.

Programs are written for whole arrays; XLA divides them, from where their inputs and the states
lie. Without one (`jax.set_mesh`) nothing here has an effect."""

import math
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float


# The axis of a layout along which the points of Ω_x are divided.
SEQUENCE = "sequence"

# The axes of a layout along which each axis of a state, a batch and the weights is divided.
LAYOUT_AXES: dict[str | None, tuple[str, ...]] = {
    "samples": ("data", "fsdp"),
    "tokens": (SEQUENCE,),
    # Of the state: every token needs all of its features for its norm.
    "state_features": (),
    # Of weights: the features of the state, and those inside an operator, which are the heads
    # side by side or the hidden features.
    "features": ("fsdp",),
    "inner": ("tensor",),
    "vocabulary": ("tensor",),
    # Depth is a scan over layers, which takes them one by one.
    "layers": (),
    None: (),
}


def token_devices() -> int:
    """Among how many devices the layout divides the tokens; 1 without one."""
    return _sizes().get(SEQUENCE, 1)


def divided(
    shape: tuple[int, ...], names: tuple[str | None, ...], sizes: Mapping[str, int]
) -> PartitionSpec:
    """The places of an array, the `names` of its axes keys of `LAYOUT_AXES`."""
    parts: list[tuple[str, ...] | None] = []
    for length, name in zip(shape, names, strict=True):
        axes = tuple(axis for axis in LAYOUT_AXES[name] if sizes.get(axis, 1) > 1)
        number = math.prod(sizes[axis] for axis in axes)
        parts.append(axes if axes and length % number == 0 else None)
    return PartitionSpec(*parts)


def on_devices(
    u: Float[Array, "*batch tokens features"],
) -> Float[Array, "*batch tokens features"]:
    """A state whose samples and tokens are divided among the devices."""
    sizes = _sizes()
    if all(size == 1 for size in sizes.values()):
        return u
    first = ("samples",) if u.ndim > 2 else ()
    between = (None,) * (u.ndim - 2 - len(first))
    names = (*first, *between, "tokens", "state_features")
    return jax.lax.with_sharding_constraint(u, divided(u.shape, names, sizes))


def _sizes() -> dict[str, int]:
    return dict(jax.sharding.get_abstract_mesh().shape)
