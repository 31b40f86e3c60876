"""Rotary positions of checkpoints."""

import math

import numpy as np

from ..equation import Rotary
from .options import Options


def rotary(
    options: Options, head_features: int, *, fraction: float = 1.0, base: float = 10000.0
) -> Rotary:
    """Rotary positions by the options of either generation of checkpoints: `rope_theta` and
    `rope_scaling`, or `rope_parameters`.

    **Arguments:**

    - `fraction`, `base`: the defaults of `partial_rotary_factor` and `rope_theta`.

    **Raises:** `InputError` for an unknown kind of scaling.
    """
    values = dict(options.get("rope_parameters", None) or {})
    values |= options.get("rope_scaling", None) or {}
    scaling = Options(values, options.file)
    fraction = options.get("partial_rotary_factor", fraction)
    features = int(head_features * scaling.get("partial_rotary_factor", fraction))
    base = scaling.get("rope_theta", options.get("rope_theta", base))
    name = "rope_type" if "rope_type" in values or "type" not in values else "type"
    stretch = None
    match scaling.allow(name, "default", "linear", "llama3"):
        case "linear":
            stretch = (float(scaling.get("factor")),) * (features // 2)
        case "llama3":
            stretch = _llama3_stretch(scaling, base, features // 2)
    return Rotary(base, None if features == head_features else features, stretch)


def _llama3_stretch(scaling: Options, base: float, half: int) -> tuple[float, ...]:
    """Long waves are stretched by a factor, short ones are not, with a smooth change between.
    Reference: the Llama 3.1 release."""
    factor = scaling.get("factor")
    low, high = scaling.get("low_freq_factor"), scaling.get("high_freq_factor")
    wavelengths = 2 * math.pi * base ** (np.arange(half) / half)
    waves = scaling.get("original_max_position_embeddings") / wavelengths
    smooth = np.clip((waves - low) / (high - low), 0, 1)
    return tuple((1 / ((1 - smooth) / factor + smooth)).tolist())
