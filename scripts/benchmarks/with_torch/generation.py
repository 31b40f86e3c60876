# PyTorch is optional.
# pyright: reportMissingImports=false
"""Generation by transformers in PyTorch, to be made in a process of its own."""

from typing import Any

import numpy as np
import torch
import transformers

from ..shared.timing import seconds_of
from .theirs import prepared_device


class TorchGeneration:
    """Greedy generation with the cache of transformers."""

    def __init__(self, folder: str, tokens: np.ndarray, length: int):
        # The type of `generate` that transformers declares does not admit its own models.
        model: Any = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
        device = prepared_device()
        self._model = model.eval().to(device)
        self._tokens = torch.from_numpy(tokens).long().to(device)
        self._length = length

    def text(self) -> np.ndarray:
        """The prompts and what follows them."""
        length, mask = self._length, torch.ones_like(self._tokens)
        options = dict(max_new_tokens=length, min_new_tokens=length, attention_mask=mask)
        with torch.inference_mode():
            text = self._model.generate(
                self._tokens, do_sample=False, use_cache=True, **options
            )
        return text.cpu().numpy()

    def turn(self) -> float:
        """Seconds to write it."""
        return seconds_of(self.text)
