"""Options of decoders, each changed in every way, against transformers."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from golden.cases import CASES, inputs, make_reference, outputs_of
from pretrained.option_fuzz import Fuzz, Outputs, changes
from pretrained.test_texts import own_outputs


def padded_inputs() -> tuple[np.ndarray, np.ndarray]:
    """Three texts: without padding, with padding behind and with padding in front."""
    tokens, mask = inputs()
    tokens, mask = tokens[[0, 1, 1]], mask[[0, 1, 1]]
    mask[2] = mask[2, ::-1]
    return tokens, mask


def at_tokens(outputs: dict[str, Any], mask: np.ndarray) -> Outputs:
    """Outputs where there is no padding."""
    return {name: np.asarray(outputs[name])[mask] for name in ("states", "logits")}


def decoder_fuzz(name: str, folder: Path, bound: float) -> Fuzz:
    import torch

    tokens, mask = padded_inputs()
    kind = type(make_reference(name, folder, "float64"))

    def theirs(at: Path) -> Outputs:
        model = kind.from_pretrained(at, dtype=torch.float64)
        return at_tokens(outputs_of(model, tokens, mask), mask)

    def ours(model: Any) -> Outputs:
        return at_tokens(own_outputs(model, tokens, mask), mask)

    return Fuzz(folder, theirs, ours, bound)
