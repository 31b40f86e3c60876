"""Pads texts to a few lengths, so that a model called from Python compiles only a few times."""

import contextlib
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from ..arguments import PositiveInt, checked
from ..errors import InputError
from .causality import check_causal
from .model import Model, once_for_each
from .parts import Text
from .text_inputs import check_text


class _Padding(NamedTuple):
    """Whether a mask hides padding, and the token axis of each output or `None`."""

    masks: bool
    axes: PyTree[int | None]


class Compiled:
    """A model to call from Python. `why_not_padded`: the reason why each shape has its own
    program; `None` if texts are padded."""

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
        return f"Compiled(one program for each shape: {self.why_not_padded})"

    def __call__(self, inputs: PyTree) -> PyTree[np.ndarray]:
        """The outputs of the model as NumPy arrays."""
        if isinstance(self._padding, str):
            return jax.tree.map(np.asarray, compiled_outputs(self.model, inputs))
        model_inputs = self.model.inputs
        text = check_text(inputs, model_inputs.vocabulary, model_inputs.context, 2**31)
        length = text.tokens.shape[-1]
        size = next(x for x in self.sizes if x >= length)
        outputs = compiled_outputs(self.model, _pad(text, size, self._padding.masks))
        return _cut(outputs, self._padding.axes, size - length)


@checked
def compiled(model: Model, *, sizes: tuple[PositiveInt, ...] | None = None) -> Compiled:
    """Compile a model for calls from Python. Texts are padded to one of a few lengths, and
    outputs are cut, so few programs serve all lengths.

        logits = ide.compiled(model)
        logits(tokens)  # [..., tokens, vocabulary], as model(tokens)

    The outputs equal the model's to rounding. A causal model does not see padding, which
    `compiled` tests; for another model a mask gives padding the quadrature weight zero. Each
    shape of batch axes has its own program. If inputs are not texts or the model takes no mask,
    each length has one too, as with `eqx.filter_jit`, and `why_not_padded` is the reason.

    **Arguments:** `sizes`, lengths to pad to besides the context, by default 64, 128, 256, ….

    **Returns:** a function of the inputs of the model that returns NumPy arrays.
    """
    return Compiled(model, sizes)


@once_for_each
def _find_padding(model: Model, size: int) -> "_Padding | str":
    """How padding up to `size` is hidden, or the reason why it cannot be."""
    text = Text(np.zeros(max(1, size - 1), int))
    if not isinstance(model.inputs.of_text(text), Text):
        return f"{type(model.inputs).__name__} need more than a text."
    with contextlib.suppress(InputError):
        axes = _token_axes(model, text, size, masks=False)
        if None not in jax.tree.leaves(axes, is_leaf=lambda x: x is None):
            check_causal("compiled", model)
            return _Padding(False, axes)
    try:
        return _Padding(True, _token_axes(model, text, size, masks=True))
    except InputError as error:
        return str(error)


def _token_axes(model: Model, text: Text, size: int, *, masks: bool) -> PyTree[int | None]:
    """The token axis of each output, which changes its length with the text, or `None`."""
    texts = (_pad(text, length, masks) for length in (text.tokens.shape[-1], size))
    shapes = (eqx.filter_eval_shape(compiled_outputs, model, x) for x in texts)

    def changing_axis(x: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct) -> int | None:
        axes = (i for i in range(-len(x.shape), 0) if x.shape[i] != y.shape[i])
        return next(axes, None)

    return jax.tree.map(changing_axis, *shapes)


@eqx.filter_jit
def compiled_outputs(model: Model, inputs: PyTree) -> PyTree[Array]:
    """`model(inputs)`, compiled once for each shape."""
    return model(inputs)


def _cut(outputs: PyTree, axes: PyTree, num_padding: int) -> PyTree[np.ndarray]:
    """Cuts padding off outputs, in NumPy, which compiles nothing."""

    def cut(x: Any, axis: int | None) -> np.ndarray:
        x = np.asarray(x)
        return x if axis is None else np.take(x, range(x.shape[axis] - num_padding), axis)

    leaves, structure = jax.tree.flatten(outputs)
    return structure.unflatten(map(cut, leaves, structure.flatten_up_to(axes)))


def _pad(text: Text, size: int, masks: bool) -> Any:
    """Pads a text to `size` with its last token; with `masks` a mask marks the padding."""
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
