"""The arithmetic of an accelerator: its precision, and the part that a training step uses."""

import contextlib

import jax


# FLOP/s of dense products in bfloat16, by a part of the name of the card; the figures of its
# maker. The more special names come first.
_PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def full_float32() -> contextlib.AbstractContextManager:
    """Until it is left, products of float32 are made in full float32, as by PyTorch. By its
    default JAX rounds their factors on an accelerator; products in bfloat16 stay what they are.
    """
    return jax.default_matmul_precision("float32")


def peak_flops(device: str) -> float | None:
    """The peak rate of products in bfloat16 of a device, by its kind; `None` if unknown."""
    return next((peak for name, peak in _PEAK_FLOPS.items() if name in device), None)


def utilisation(model_flops: float, seconds: float) -> float | None:
    """Model FLOP utilisation of the first device, `model FLOPs / (seconds · peak FLOP/s)`."""
    peak = peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else model_flops / (seconds * peak)
