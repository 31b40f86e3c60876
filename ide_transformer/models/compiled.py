"""Pads texts to a few lengths, so that a model called from Python compiles only a few times."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..arguments import PositiveInt, checked
from ..errors import InputError
from .causality import moved
from .model import Model, once_for_each
from .parts import Text
from .text_inputs import as_text, checked_text


# The change that hidden padding may cause, relative to the largest output.
_ROUNDING = 1e-5


class _Padding(NamedTuple):
    """Whether a mask hides padding, and the token axis of each output, if any."""

    masks: bool
    axes: PyTree[int | None]


class Compiled:
    """What `compiled` returns. `why_not_padded`: why each shape has its own program, if so."""

    def __init__(self, model: Model, sizes: tuple[int, ...] | None):
        self.model = model
        self.sizes = ()
        context = getattr(model.inputs, "context", None)
        if not hasattr(model.inputs, "vocabulary") or context is None:
            self._padding = f"{type(model.inputs).__name__} are not texts."
        else:
            sizes = sizes or tuple(2**k for k in range(6, 64))
            self.sizes = (*sorted({x for x in sizes if x < context}), context)
            self._padding = _find_padding(model, self.sizes[0])
        self.why_not_padded = self._padding if isinstance(self._padding, str) else None

    def __repr__(self) -> str:
        if self.why_not_padded is None:
            return f"Compiled(texts of {', '.join(map(str, self.sizes))} tokens)"
        return f"Compiled(each shape by itself: {self.why_not_padded})"

    def __call__(self, inputs: PyTree) -> PyTree[np.ndarray]:
        """The outputs of the model as NumPy arrays."""
        if isinstance(self._padding, str):
            return jax.tree.map(np.asarray, compiled_outputs(self.model, inputs))
        known = self.model.inputs
        text = checked_text(inputs, known.vocabulary, known.context, 2**31)
        number = text.tokens.shape[-1]
        size = next(x for x in self.sizes if x >= number)
        padded = with_padding(text, size, self._padding.masks)
        return _cut(compiled_outputs(self.model, padded), self._padding.axes, size - number)


@checked
def compiled(model: Model, *, sizes: tuple[PositiveInt, ...] | None = None) -> Compiled:
    """Compile a model for calls from Python. Texts are padded to one of a few lengths, so that
    few programs serve all lengths, and the outputs are cut.

        logits = ide.compiled(model)
        logits(tokens)  # [..., tokens, vocabulary], as model(tokens)

    The outputs equal the model's to rounding: a causal model does not see padding, or a mask
    gives it the quadrature weight zero. This is tested on a text, also with changed weights.
    If padding is seen, or inputs are not texts, `why_not_padded` has the reason and each shape
    has its own program, as with `eqx.filter_jit`. So does each shape of batch axes.

    **Arguments:** `sizes`, lengths to pad to besides the context, by default 64, 128, 256, ….

    **Returns:** a function of the inputs of the model that returns NumPy arrays.
    """
    return Compiled(model, sizes)


@once_for_each
def _find_padding(model: Model, size: int) -> "_Padding | str":
    """How padding up to a length can be hidden, or the reason why it cannot."""
    number = max(1, size - 3)
    text = Text(np.random.default_rng(0).integers(0, model.inputs.vocabulary, number))
    if not isinstance(model.inputs.of_text(text), Text):
        return f"{type(model.inputs).__name__} are more than texts."
    model = model.with_precision(None)
    # Weights that are zero could hide an effect.
    tries = model, moved(model, 1), moved(model, -1)
    reason = ""
    for masks in (False, True):
        try:
            longer = as_text(with_padding(text, size, masks))
            found = [_outputs_for(x, text) for x in tries]
            others = [_outputs_for(x, longer) for x in tries]
        except InputError as error:
            reason = str(error)
            continue
        axes = jax.tree.map(_changing_axis, found[0], others[0])
        others = [_cut(x, axes, size - number) for x in others]
        pairs = zip(jax.tree.leaves(found), jax.tree.leaves(others), strict=True)
        if all(
            np.abs(x - y).max(initial=0) <= _ROUNDING * np.abs(x).max(initial=0)
            for x, y in pairs
            if np.isfinite(x).all()
        ):
            return _Padding(masks, axes)
        reason = "padding behind a text changes its outputs, with a mask too."
    return reason


def _outputs_for(model: Model, text: Text) -> PyTree[np.ndarray]:
    inputs = model.inputs.of_text(text)
    # Tokens alone, as users call it: the program is used again.
    inputs = inputs.tokens if isinstance(inputs, Text) and text.mask is None else inputs
    return jax.tree.map(np.asarray, compiled_outputs(model, inputs))


@eqx.filter_jit
def compiled_outputs(model: Model, inputs: PyTree) -> PyTree[Array]:
    return model(inputs)


def _changing_axis(x: np.ndarray, y: np.ndarray) -> int | None:
    changing = (i for i in range(-x.ndim, 0) if x.shape[i] != y.shape[i])
    return next(changing, None)


def _cut(outputs: PyTree, axes: PyTree, number: int) -> PyTree[np.ndarray]:
    """Outputs without the last `number` tokens. NumPy compiles nothing."""

    def cut(x: Any, axis: int | None) -> np.ndarray:
        x = np.asarray(x)
        return x if axis is None else np.take(x, range(x.shape[axis] - number), axis)

    leaves, structure = jax.tree.flatten(outputs)
    return structure.unflatten(map(cut, leaves, structure.flatten_up_to(axes)))


def with_padding(text: Text, size: int, masks: bool) -> Any:
    """A text padded to `size` with its last token; `masks` marks the padding."""
    room = [(0, 0)] * (np.ndim(text.tokens) - 1) + [(0, size - text.tokens.shape[-1])]
    tokens = np.pad(np.asarray(text.tokens, int), room, mode="edge")
    mask = text.mask
    if mask is None and masks:
        mask = np.ones(np.shape(text.tokens), bool)
    if mask is not None:
        mask = np.pad(np.asarray(mask, bool), room)
    segments = text.segments
    if segments is not None:
        segments = np.pad(np.asarray(segments), room, mode="edge")
    return tokens if mask is None and segments is None else Text(tokens, mask, segments)


def size_of(tokens: int, first: int, factor: int) -> int:
    """The smallest of `first`, `first * factor`, … that is at least `tokens`."""
    while first < tokens:
        first *= factor
    return first
