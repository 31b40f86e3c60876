"""Checks models."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..equation.domain import by_samples
from ..models import Model, Text, TokenLogits
from ..models.text_inputs import as_text
from .properties import AbstractProperties, Names, in_dtype, slopes


def check_model(
    model: Model, inputs: PyTree, *, causal: bool | None = None, without: Names = ()
) -> None:
    """Checks the properties of a model in float64. Raises `AssertionError` with all that do not
    hold.

    **Arguments:**

    - `model`, `inputs`: as small as possible, with a leading axis of at least two samples.
    - `causal`: whether the model is causal; by default if the read-out is `TokenLogits`.
    - `without`: names of properties that are not checked.
    """
    with jax.enable_x64(True):
        ModelProperties(model, inputs, causal).check(without)


def outputs_at(outputs: PyTree, tokens: np.ndarray | Array | None) -> PyTree:
    """Sets the outputs of a batch to zero except at the marked tokens; `None` marks all."""

    def select(x):
        if tokens is None or x.shape[:2] != tokens.shape:
            return x
        return x * tokens.reshape(*tokens.shape, *[1] * (x.ndim - 2))

    return jax.tree.map(select, outputs)


@eqx.filter_jit
def outputs_of(model, inputs, tokens):
    return outputs_at(model(inputs), tokens)


class ModelProperties(AbstractProperties):
    """Properties of a model with its inputs."""

    properties = "copies", "batch", "padding", "causal", "gradient"
    refusals = ()

    def __init__(self, model, inputs, causal=None):
        super().__init__(in_dtype(model))
        self.model = self.part
        self.inputs = in_dtype(inputs)
        self.is_causal = isinstance(model.read_out, TokenLogits) if causal is None else causal
        self.seen = self.seen_tokens()
        self.outputs = self.outputs_for(self.inputs)

    def seen_tokens(self) -> np.ndarray | None:
        """The tokens of a batch that are not padding."""
        mask = self.inputs.mask if isinstance(self.inputs, Text) else None
        return None if mask is None else np.asarray(mask) > 0

    def outputs_for(self, inputs: PyTree) -> PyTree:
        return outputs_of(self.model, inputs, self.seen)

    def batch(self):
        """other samples change no output of the first; take no mean over samples."""
        has_samples = by_samples(self.inputs)
        same = jax.tree.map(
            lambda x, split: x[np.zeros(len(x), int)] if split else x, self.inputs, has_samples
        )
        pair = self.outputs_for(same), self.outputs
        first, expected = (jax.tree.map(lambda x: x[0], y) for y in pair)
        return first, expected, 1e-12

    def padding(self):
        """padding changes no other output; pad the domain by `domain.padded(mask)`."""
        return ((), ()) if self.seen is None else self.change_others(self.seen)

    def causal(self):
        """a later token changes no output before it; build attention with causal=True."""
        if not self.is_causal:
            return (), ()
        shape = as_text(self.inputs).tokens.shape
        return self.change_others(np.broadcast_to(np.arange(shape[1]) < shape[1] // 2, shape))

    def change_others(self, fixed: np.ndarray) -> tuple[PyTree, PyTree, float]:
        """Outputs at the fixed tokens, after and before the other tokens change."""
        tokens = np.asarray(as_text(self.inputs).tokens)
        tokens = np.where(fixed, tokens, (tokens + 1) % max(tokens.max(), 1))
        text = isinstance(self.inputs, Text)
        after = self.outputs_for(self.inputs._replace(tokens=tokens) if text else tokens)
        return outputs_at(after, fixed), outputs_at(self.outputs, fixed), 1e-12

    def gradient(self):
        """the gradient equals finite differences."""
        return slopes(outputs_of, (self.model,), self.inputs, self.seen)
