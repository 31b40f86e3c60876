import time
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int

from ide_transformer.models import Model, TextInputs, TokenLogits
from ide_transformer.models.generate import Draw, write


class OwnGeneration:
    """Greedy generation here, with the methods of `generation.TorchGeneration`.

    **Arguments:**

    - `tokens`: of the prompts.
    - `length`: tokens to write.
    - `cached`: tokens that the cache keeps, 0 for none.
    """

    def __init__(
        self,
        model: Model[TextInputs, TokenLogits],
        tokens: Int[Array, "batch prompt"],
        length: int,
        *,
        cached: int,
    ):
        self._model, self._tokens = model, tokens

        @eqx.filter_jit
        def written(model: Model[TextInputs, TokenLogits], tokens: Array) -> Array:
            key, end = jax.random.key(0), tokens.shape[-1]
            draw = Draw(temperature=0.0)
            return write(model, tokens, end, length, key, draw, cached_tokens=cached)

        self._written = written

    def text(self) -> np.ndarray:
        """The prompts and what follows them."""
        return np.asarray(self._written(self._model, self._tokens))

    def turn(self) -> float:
        """Seconds to write it."""
        began = time.perf_counter()
        self.text()
        return time.perf_counter() - began

    def call(self, method: str) -> Any:
        """See `PairedProcess`."""
        return getattr(self, method)()
