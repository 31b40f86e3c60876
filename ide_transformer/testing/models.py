"""Conformance of models."""

import copy
import functools as ft
import io
import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .. import models
from ..equation.domain import by_samples
from ..errors import InputError
from ..integration import Mesh
from ..models import Field, Model, Text
from ..models.text_inputs import as_text
from .properties import check_all, trees_equal, without_those


def check_model(
    model: Model,
    inputs: PyTree,
    *,
    causal: bool | None = None,
    fixed: Callable[[Any], PyTree] = lambda model: (),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every model does, one with inputs, operators or a read-out of your own
    included:

    - `shape`: the state at depth 0 is `[..., tokens, features]`, with those of the inputs and
      of its domain, and outputs have the batch axes;
    - `finite`: all outputs are;
    - `batch`: other samples change nothing of the outputs of a sample;
    - `jit`: a sample by itself, as the model is called, has the outputs that it has in a batch
      of the compiled model;
    - `padding`: what stands there changes no other output;
    - `causal`: a later token changes no output before it;
    - `dropout`: where the model is random, a key changes the outputs;
    - `gradient`: it is finite, and the difference quotient along a direction of all weights;
    - `mesh`: on twice as many layers, steps, and points of functions of a feature, outputs
      have the same shape, and from there back to its own mesh it is the same model;
    - `cache`: token by token a `CachedDecoder` gives the logits of the whole text;
    - `copies`: saved and loaded by equinox, pickled, and by a deep copy it stays the same.

        check_model(model, np.arange(12).reshape(2, 6))

    **Arguments:**

    - `model`: in double precision best, at sizes as small as they can be.
    - `inputs`: arrays with one leading axis of two samples or more. Tokens at the padding of a
      `Text`, and values of a `Field` at points of weight zero, are changed.
    - `causal`: whether it is; by default where the read-out is `TokenLogits`.
    - `fixed`: weights that have no gradient on purpose, such as the positions of speech,
      `lambda model: model.inputs.positions`.
    - `without`: names of properties that are not checked.
    """
    trial = _Trial(model, inputs, fixed)
    is_causal = isinstance(model.read_out, models.TokenLogits) if causal is None else causal
    names = ["shape", "finite", "batch", "jit", "padding", "causal"]
    names += ["dropout", "gradient", "mesh", "cache", "copies"]

    def check(name: str) -> None:
        if (is_causal or name != "causal") and (problem := getattr(trial, name)()):
            raise AssertionError(f"{name}: {problem}")

    check_all(ft.partial(check, name) for name in without_those(names, without))


class _Trial:
    """A model with its inputs; a method for each property returns what is wrong."""

    def __init__(self, model: Model, inputs: PyTree, fixed: Callable[[Any], PyTree]):
        self.model, self.inputs, self.fixed = model, inputs, fixed
        weights = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
        self.rounding = max([float(jnp.finfo(x.dtype).eps) for x in weights], default=1e-16)
        self.close = 1e4 * self.rounding
        self.text = inputs.text if isinstance(inputs, models.SourceAndText) else inputs
        self.seen = self.seen_outputs()
        self.outputs, self.gradient_of_all = self.evaluate(model, inputs)

    def evaluate(self, model: Model, inputs: PyTree) -> tuple[PyTree[Array], Model]:
        return _outputs_and_gradient(model, inputs, self.seen)

    def seen_outputs(self) -> np.ndarray | None:
        """The outputs of a batch, by its first two axes, that are not padding."""
        seen = _seen(self.text)
        if seen is None:
            return None
        learned = np.ones((len(seen), self.model.inputs.prefix_tokens), bool)
        after = np.concatenate([learned, seen], axis=1)
        outputs = jax.tree.leaves(eqx.filter_eval_shape(self.model, self.inputs))
        return after if after.shape in [x.shape[:2] for x in outputs] else seen

    def change(self, outputs: PyTree, others: PyTree, seen: np.ndarray | None = None) -> str:
        """The largest change of outputs, of those that are seen; empty for mere rounding."""
        change = _change(outputs, others, seen)
        return f"({change:.1e})" if change > self.close else ""

    def change_by(self, inputs: PyTree, seen: np.ndarray | None) -> str:
        return self.change(self.outputs, self.evaluate(self.model, inputs)[0], seen)

    def shape(self) -> str:
        u0, domain = eqx.filter_eval_shape(self.model.embed, self.inputs)
        wanted = (len(domain.points), self.model.features)
        if u0.ndim != 3 or u0.shape[1:] != wanted:
            return (
                f"embed gives a state {u0.shape} for a batch; its domain and `features` say "
                f"[batch, {wanted[0]}, {wanted[1]}]"
            )
        shapes = [x.shape for x in jax.tree.leaves(self.outputs) if x.shape[:1] != u0.shape[:1]]
        return f"outputs {shapes} for {len(u0)} samples; keep the batch axes" * bool(shapes)

    def finite(self) -> str:
        finite = all(np.isfinite(x).all() for x in jax.tree.leaves(self.outputs))
        return "" if finite else "outputs are NaN or infinite"

    def batch(self) -> str:
        own = by_samples(self.inputs)
        copies = jax.tree.map(
            lambda x, own: np.repeat(x[:1], len(x), 0) if own else x, self.inputs, own
        )
        first, others = (
            jax.tree.map(lambda x: x[0], outputs)
            for outputs in (self.outputs, self.evaluate(self.model, copies)[0])
        )
        change = self.change(first, others)
        advice = "take no mean over samples"
        return change and f"other samples change the outputs of the first {change}; {advice}"

    def jit(self) -> str:
        own = by_samples(self.inputs)
        sample = jax.tree.map(lambda x, own: x[0] if own else x, self.inputs, own)
        change = self.change(jax.tree.map(lambda x: x[0], self.outputs), self.model(sample))
        advice = "count axes from the end, use arrays of JAX, and no state that changes"
        return change and f"a sample by itself, not compiled, has others {change}; {advice}"

    def padding(self) -> str:
        parts = jax.tree.leaves(self.inputs, is_leaf=_has_padding)
        if all(_seen(part) is None for part in parts):
            return ""
        other = jax.tree.map(_other_at_padding, self.inputs, is_leaf=_has_padding)
        advice = "give the domain weights that are zero there, `domain.padded(mask)`"
        change = self.change_by(other, self.seen)
        return change and f"what stands there changes other outputs {change}; {advice}"

    def causal(self) -> str:
        tokens = np.array(as_text(self.text).tokens)
        first = tokens.shape[1] // 2
        tokens[:, first:] = (tokens[:, first:] + 1) % max(tokens.max(), 1)
        other: Any = tokens
        if isinstance(self.text, Text):
            other = self.text._replace(tokens=tokens)
        if isinstance(self.inputs, models.SourceAndText):
            other = self.inputs._replace(text=other)
        before = np.broadcast_to(np.arange(tokens.shape[1]) < first, tokens.shape)
        change = self.change_by(other, before)
        return change and (
            f"outputs before token {first} depend on the tokens from there on {change}; "
            "build attention with causal=True"
        )

    def dropout(self) -> str:
        if not self.model.random:
            return ""
        drawn = eqx.filter_jit(self.model)(self.inputs, key=jax.random.key(0))
        same = not self.change(drawn, self.outputs)
        return "the model is random, and a key does not change its outputs" * same

    def gradient(self) -> str:
        for path, x in jax.tree_util.tree_leaves_with_path(self.gradient_of_all):
            if not np.isfinite(x).all():
                return f"that of model{jax.tree_util.keystr(path)} is NaN or infinite"
        draw = np.random.default_rng(0).standard_normal
        weights = eqx.filter(self.model, eqx.is_inexact_array)
        number = sum(x.size for x in jax.tree.leaves(weights))
        rate = jax.tree.map(
            lambda x: np.asarray(draw(x.shape) / np.sqrt(number), x.dtype), weights
        )
        if jax.tree.leaves(self.fixed(rate)):
            rate = eqx.tree_at(self.fixed, rate, replace_fn=np.zeros_like)
        step = self.rounding ** (1 / 3)

        def at(distance: float) -> float:
            moved = jax.tree.map(lambda w, r: np.asarray(w) + distance * r, weights, rate)
            outputs, _ = self.evaluate(eqx.combine(moved, self.model), self.inputs)
            return float(_total(jax.device_get(outputs), self.seen, np))

        quotient = (at(step) - at(-step)) / (2 * step)
        pairs = [*zip(*map(jax.tree.leaves, (self.gradient_of_all, rate)), strict=True)]
        along = sum(float(np.sum(np.asarray(g) * r)) for g, r in pairs)
        size = np.sqrt(sum(float(np.sum(np.asarray(g) ** 2)) for g, _ in pairs))
        if abs(quotient - along) <= 1e3 * step**2 * (size + abs(quotient)):
            return ""
        return (
            f"{along:.6e} along a direction of the weights, but the difference quotient is "
            f"{quotient:.6e}; weights that have none on purpose are `fixed`"
        )

    def mesh(self) -> str:
        model, number = self.model, self.model.control.num_intervals
        given: dict[str, Any] = {"layers": number}
        if model.mesh.stepsize_controller is None:
            given["steps"] = model.mesh.steps
        if model.space is not None:
            given["width"] = model.features
        doubled = Mesh(**{name: 2 * x for name, x in given.items()})
        own = Mesh(**given)
        try:
            found = eqx.filter_eval_shape(
                lambda model, inputs: model.on(doubled)(inputs), model, self.inputs
            )
            first, back = _there_and_back(model, own, doubled)
        except InputError as error:
            return f"the model is on no other: {error}"
        shapes = [jax.tree.map(lambda x: x.shape, x) for x in (found, self.outputs)]
        if shapes[0] != shapes[1]:
            return f"outputs {shapes[0]} on another mesh, and {shapes[1]} on its own"
        if {part.control.num_intervals for part in model.equations} == {number}:
            first = model
        wrong = f"on {2 * number} layers and back on {number} it has other weights"
        return "" if trees_equal(first, back, self.close) else wrong

    def cache(self) -> str:
        model = self.model
        read_out = isinstance(model.read_out, models.TokenLogits)
        of_texts = read_out and type(model.inputs) is models.TextInputs
        if not of_texts or models.why_not_cached(model) is not None:
            return ""
        tokens = jnp.asarray(as_text(self.inputs).tokens)
        first = (tokens.shape[1] + 1) // 2
        logits = logits_one_by_one(model, tokens, first)
        seen = None if self.seen is None else self.seen[:, first - 1 :]
        change = self.change(self.outputs[:, first - 1 :], logits, seen)
        return change and f"logits token by token are not those of the whole text {change}"

    def copies(self) -> str:
        def saved() -> Model:
            file = io.BytesIO()
            eqx.tree_serialise_leaves(file, self.model)
            file.seek(0)
            blank = eqx.filter_eval_shape(lambda: self.model)
            return eqx.tree_deserialise_leaves(file, blank)

        for name, copied in (
            ("saved and loaded", saved),
            ("pickled", lambda: pickle.loads(pickle.dumps(self.model))),
            ("by a deep copy", lambda: copy.deepcopy(self.model)),
        ):
            try:
                same = trees_equal(copied(), self.model)
            except Exception as error:
                return (
                    f"the model cannot be {name}: {error}; define functions and classes that "
                    "it keeps at the top of a module"
                )
            if not same:
                return f"{name} it is another model"
        return ""


@eqx.filter_jit
def _outputs_and_gradient(
    model: Model, inputs: PyTree, seen: np.ndarray | None
) -> tuple[PyTree[Array], Model]:
    """One program for all checks of the same model."""

    def total(model: Model) -> tuple[Array, PyTree[Array]]:
        outputs = model(inputs)
        return _total(outputs, seen, jnp), outputs

    gradient, outputs = eqx.filter_grad(total, has_aux=True)(model)
    return outputs, gradient


def _total(outputs: PyTree, seen: np.ndarray | None, numpy: Any) -> Any:
    """A number that all outputs change that are no padding, none like another."""

    def of(x: Any) -> Any:
        waves = numpy.sin(x + numpy.arange(x.size).reshape(x.shape))
        if seen is not None and x.shape[:2] == seen.shape:
            waves = waves * seen.reshape(*seen.shape, *[1] * (x.ndim - 2))
        return numpy.sum(waves)

    return sum(of(x) for x in jax.tree.leaves(outputs))


def _change(outputs: PyTree, others: PyTree, seen: np.ndarray | None = None) -> float:
    """The largest change of outputs, of those that are seen, by the size of all."""

    def change(x: Any, y: Any) -> float:
        x, y = np.asarray(x), np.asarray(y)
        size, difference = np.abs(x).max() + 1e-30, np.abs(x - y)
        if seen is not None and x.shape[:2] == seen.shape:
            difference = difference[seen]
        return float(np.max(difference, initial=0.0) / size)

    return max(jax.tree.leaves(jax.tree.map(change, outputs, others)), default=0.0)


def _has_padding(part: PyTree) -> bool:
    return isinstance(part, Text | Field)


def _seen(part: PyTree) -> np.ndarray | None:
    """The tokens of a batch that are not padding."""
    if isinstance(part, Text) and part.mask is not None:
        return np.broadcast_to(np.asarray(part.mask, bool), part.tokens.shape)
    if isinstance(part, Field) and part.domain.weights is not None:
        return np.broadcast_to(np.asarray(part.domain.weights) > 0, part.values.shape[:2])
    return None


def _other_at_padding(part: PyTree) -> PyTree:
    seen = _seen(part)
    if seen is None:
        return part
    if isinstance(part, Text):
        tokens = np.asarray(part.tokens)
        return part._replace(tokens=np.where(seen, tokens, (tokens + 1) % tokens.max()))
    values = np.asarray(part.values)
    return part._replace(values=values + ~seen.reshape(*seen.shape, *[1] * (values.ndim - 2)))


@eqx.filter_jit
def _there_and_back(model: Model, own: Mesh, other: Mesh) -> tuple[Model, Model]:
    return model.on(own), model.on(own).on(other).on(own)


@eqx.filter_jit
def logits_one_by_one(
    model: Model[models.TextInputs, models.TokenLogits], tokens: Array, first: int
) -> Array:
    """The logits after each token from the prompt on, read one by one."""
    decoder = models.CachedDecoder(model, tokens.shape[-1])
    logits, cache = decoder.prefill(tokens[..., :first])

    def read(cache: PyTree, position: Array) -> tuple[PyTree, Array]:
        token = jax.lax.dynamic_index_in_dim(tokens, position, -1, keepdims=False)
        logits, cache = decoder.extend(token, position, cache)
        return cache, logits

    _, others = jax.lax.scan(read, cache, jnp.arange(first, tokens.shape[-1]))
    return jnp.moveaxis(jnp.concatenate([logits[None], others]), 0, -2)
