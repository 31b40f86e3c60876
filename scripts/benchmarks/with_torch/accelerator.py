"""The part of an accelerator's arithmetic that a training step uses."""

import jax


# FLOP/s of dense products in bfloat16, by a part of the name of the card; the figures of its
# maker. The more special names come first.
_PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def peak_flops(device: str) -> float | None:
    """The peak rate of products in bfloat16 of a device, by its kind; `None` if unknown."""
    return next((peak for name, peak in _PEAK_FLOPS.items() if name in device), None)


def utilisation(model_flops: float, seconds: float) -> float | None:
    """Model FLOP utilisation of the first device, `model FLOPs / (seconds · peak FLOP/s)`."""
    peak = peak_flops(jax.devices()[0].device_kind)
    return None if peak is None else model_flops / (seconds * peak)
