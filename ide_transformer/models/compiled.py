"""Models called from Python with texts of any length, by a few programs."""

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


# Of the largest output, by which padding that is hidden may change others.
_ROUNDING = 1e-5


class _Padding(NamedTuple):
    """Whether a mask hides padding, and the axis of tokens of each output, if any."""

    masks: bool
    axes: PyTree[int | None]


class Compiled:
    """A model as `compiled` makes it, with programs for `sizes` of texts; `why_not_padded` is
    the reason where each shape has its own, else `None`."""

    def __init__(self, model: Model, sizes: tuple[int, ...] | None):
        self.model = model
        self.sizes = ()
        self._padding = None
        context = getattr(model.inputs, "context", None)
        if not hasattr(model.inputs, "vocabulary") or context is None:
            kind = type(model.inputs).__name__
            self.why_not_padded = f"{kind} are no texts, whose padding could be hidden."
            return
        sizes = sizes or tuple(2**k for k in range(6, 64))
        self.sizes = (*sorted({x for x in sizes if x < context}), context)
        found = _find_padding(model, self.sizes[0])
        self.why_not_padded = found if isinstance(found, str) else None
        self._padding = None if isinstance(found, str) else found

    def __repr__(self) -> str:
        if self.why_not_padded is None:
            return f"Compiled(texts of {', '.join(map(str, self.sizes))} tokens)"
        return f"Compiled(each shape by itself: {self.why_not_padded})"

    def __call__(self, inputs: PyTree) -> PyTree[np.ndarray]:
        """The outputs of the model, in NumPy."""
        if self._padding is None:
            return jax.tree.map(np.asarray, compiled_outputs(self.model, inputs))
        known = self.model.inputs
        text = checked_text(inputs, known.vocabulary, known.context, 2**31)
        number = text.tokens.shape[-1]
        size = next(x for x in self.sizes if x >= number)
        padded = with_padding(text, size, self._padding.masks)
        return _cut(compiled_outputs(self.model, padded), self._padding.axes, size - number)


@checked
def compiled(model: Model, *, sizes: tuple[PositiveInt, ...] | None = None) -> Compiled:
    """Compile a model that is called from Python, so that texts of many lengths need few
    programs: they get padding up to one of a few sizes, and the outputs are cut.

        logits = ide.compiled(model)
        logits(tokens)  # [..., tokens, vocabulary], as model(tokens)

    The outputs equal the outputs of the model to rounding. A causal model does not see padding,
    or a mask gives it the quadrature weight zero; this is tried on a text, with the weights and
    with others. Where padding is seen, and for inputs that are no texts, `why_not_padded` has
    the reason, and each shape of inputs is compiled by itself, as `eqx.filter_jit` does. Batch
    axes are part of a program.

    **Arguments:**

    - `sizes`: lengths to pad to, the context of the model always one of them; by default 64,
      128, 256, and so on.

    **Returns:** a function of the inputs of the model; its outputs are arrays of NumPy.
    """
    return Compiled(model, sizes)


@once_for_each
def _find_padding(model: Model, size: int) -> "_Padding | str":
    """Find how padding up to this length can be hidden, or the reason why it cannot."""
    number = max(1, size - 3)
    text = Text(np.random.default_rng(0).integers(0, model.inputs.vocabulary, number))
    if not isinstance(model.inputs.of_text(text), Text):
        return (
            f"{type(model.inputs).__name__} are no texts alone, whose padding could be hidden."
        )
    # With its weights and with others, so that nothing hides behind zeros.
    model = model.with_precision(None)
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
    # As it is called, so that it is the same program.
    inputs = inputs.tokens if isinstance(inputs, Text) and text.mask is None else inputs
    return jax.tree.map(np.asarray, compiled_outputs(model, inputs))


@eqx.filter_jit
def compiled_outputs(model: Model, inputs: PyTree) -> PyTree[Array]:
    """The outputs of a model, compiled."""
    return model(inputs)


def _changing_axis(x: np.ndarray, y: np.ndarray) -> int | None:
    changing = (i for i in range(-x.ndim, 0) if x.shape[i] != y.shape[i])
    return next(changing, None)


def _cut(outputs: PyTree, axes: PyTree, number: int) -> PyTree[np.ndarray]:
    """Drop the last `number` tokens, in NumPy, which compiles nothing."""
    leaves, structure = jax.tree.flatten(outputs)
    kept = []
    for x, axis in zip(leaves, structure.flatten_up_to(axes), strict=True):
        x = np.asarray(x)
        if axis is not None:
            x = np.moveaxis(x, axis, 0)
            x = np.moveaxis(x[: len(x) - number], 0, axis)
        kept.append(x)
    return structure.unflatten(kept)


def with_padding(text: Text, size: int, masks: bool) -> Any:
    """A text with its last token behind it, up to `size`, as padding where it `masks`."""
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
    """The first of a few sizes that holds all tokens."""
    while first < tokens:
        first *= factor
    return first
