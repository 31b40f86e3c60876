"""Divides arrays among the devices of a layout, if there is one (`jax.set_mesh`).

Programs are written for whole arrays; XLA divides them as their inputs and states are."""

import math
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float


# The axis of a layout that divides the points of Ω_x.
SEQUENCE = "sequence"

# The axes of a layout, by the axis of a state, a batch or a weight that they divide.
LAYOUT_AXES: dict[str | None, tuple[str, ...]] = {
    "samples": ("data", "fsdp"),
    "tokens": (SEQUENCE,),
    # Every token needs all features of the state for its norm.
    "state_features": (),
    # In weights: features of the state, and hidden features or heads.
    "features": ("fsdp",),
    "inner": ("tensor",),
    "vocabulary": ("tensor",),
    # A scan reads layers one by one.
    "layers": (),
    None: (),
}


def token_devices() -> int:
    """The number of devices that divide the tokens; 1 without a layout."""
    return _sizes().get(SEQUENCE, 1)


def partition_spec(
    shape: tuple[int, ...], names: tuple[str | None, ...], sizes: Mapping[str, int]
) -> PartitionSpec:
    """The partition of an array; `names` of its axes are keys of `LAYOUT_AXES`."""
    parts: list[tuple[str, ...] | None] = []
    for length, name in zip(shape, names, strict=True):
        axes = tuple(axis for axis in LAYOUT_AXES[name] if sizes.get(axis, 1) > 1)
        num_devices = math.prod(sizes[axis] for axis in axes)
        parts.append(axes if axes and length % num_devices == 0 else None)
    return PartitionSpec(*parts)


def on_devices(
    u: Float[Array, "*batch tokens features"],
) -> Float[Array, "*batch tokens features"]:
    """Divides the samples and tokens of a state among the devices."""
    sizes = _sizes()
    if all(size == 1 for size in sizes.values()):
        return u
    samples = ("samples",) if u.ndim > 2 else ()
    between = (None,) * (u.ndim - 2 - len(samples))
    names = (*samples, *between, "tokens", "state_features")
    return jax.lax.with_sharding_constraint(u, partition_spec(u.shape, names, sizes))


def _sizes() -> dict[str, int]:
    return dict(jax.sharding.get_abstract_mesh().shape)
