"""Conformance of models."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..equation.domain import by_samples
from ..errors import InputError
from ..models import (
    CachedDecoder,
    Field,
    Mesh,
    Model,
    SourceAndText,
    Text,
    TextInputs,
    TokenLogits,
    why_not_cached,
)
from ..models.text_inputs import as_text


def check_model(
    model: Model,
    inputs: PyTree,
    *,
    causal: bool | None = None,
    fixed: Callable[[Any], PyTree] = lambda model: (),
    meshes: bool = True,
) -> None:
    """Check what every model must do, one with inputs, operators or a read-out of your own
    included.

        check_model(model, np.arange(12).reshape(2, 6))

    **Arguments:**

    - `model`: with weights in float32 or, better, float64, at sizes as small as they can be.
    - `inputs`: arrays with one leading axis of two samples or more. Tokens at the padding of a
      `Text`, and values of a `Field` at points of weight zero, are changed.
    - `causal`: whether outputs at a token must not see later tokens; by default where the
      read-out is `TokenLogits`.
    - `fixed`: weights that have no gradient on purpose, such as the positions of speech,
      `lambda model: model.inputs.positions`.
    - `meshes`: whether the model has others; `False` for a control that cannot be resampled.

    **Raises:** `AssertionError`. It begins with the name of what does not hold:

    - "shape": the state at depth 0 is `[..., tokens, features]`, those of the inputs and of its
      domain, and a sample has no other axes than a batch of them.
    - "finite": all outputs are.
    - "jit": the compiled model gives the outputs of the model as it is called.
    - "batch": a sample has the outputs that it has alone.
    - "padding": what stands there changes no other output.
    - "causal": a later token changes no output before it.
    - "dropout": where the model is random, a key changes the outputs.
    - "gradient": it is finite, and the difference quotient along a direction of all weights.
    - "mesh": on twice as many intervals, steps, and points of functions of a feature, outputs
      have the same shape, and from there back to its own mesh it is the same model.
    - "cache": token by token a `CachedDecoder` gives the logits of the whole text.
    - "copied": saved and loaded by equinox, pickled, and by a deep copy it stays the same.
    """
    seen = _seen_outputs(model, inputs)
    outputs, gradient = _outputs_and_gradient(model, inputs, seen)
    _check_shape(model, inputs, outputs)
    for x in jax.tree.leaves(outputs):
        assert np.isfinite(x).all(), "finite: outputs are NaN or infinite"
    _check_jit_and_batch(model, inputs, outputs)
    _check_padding(model, inputs, outputs, seen)
    if isinstance(model.read_out, TokenLogits) if causal is None else causal:
        _check_causal(model, inputs, outputs, seen)
    if model.random:
        drawn = eqx.filter_jit(model)(inputs, key=jax.random.key(0))
        assert _change(drawn, outputs) > _close(model), (
            "dropout: the model is random, and a key does not change its outputs"
        )
    _check_gradient(model, inputs, gradient, fixed, seen)
    if meshes:
        _check_meshes(model, inputs, outputs)
    _check_cache(model, inputs, outputs)
    _check_copies(model)


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


def _weights(model: PyTree) -> list[Any]:
    return jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))


def _rounding(model: Model) -> float:
    return max(float(jnp.finfo(x.dtype).eps) for x in [*_weights(model), np.zeros(1, float)])


def _close(model: Model) -> float:
    return 1e4 * _rounding(model)


def _change(outputs: PyTree, others: PyTree, seen: np.ndarray | None = None) -> float:
    """The largest change of outputs, of those that are seen, by the size of all."""

    def change(x: Any, y: Any) -> float:
        x, y = np.asarray(x), np.asarray(y)
        size, difference = np.abs(x).max() + 1e-30, np.abs(x - y)
        if seen is not None and x.shape[: seen.ndim] == seen.shape:
            difference = difference[seen]
        return float(np.max(difference, initial=0.0) / size)

    return max(jax.tree.leaves(jax.tree.map(change, outputs, others)), default=0.0)


def _check_shape(model: Model, inputs: PyTree, outputs: PyTree) -> None:
    u0, domain = eqx.filter_eval_shape(model.embed, inputs)
    wanted = (domain.points.shape[0], model.features)
    assert u0.shape[-2:] == wanted and u0.ndim == 3, (
        f"shape: embed gives a state {u0.shape} of a batch; its domain and `features` say "
        f"[batch, {wanted[0]}, {wanted[1]}]"
    )
    for x in jax.tree.leaves(outputs):
        assert x.shape[:1] == u0.shape[:1], (
            f"shape: outputs {x.shape} for {u0.shape[0]} samples; keep the batch axes"
        )


def _check_jit_and_batch(model: Model, inputs: PyTree, outputs: PyTree) -> None:
    first = jax.tree.map(lambda x: x[0], outputs)
    sample = jax.tree.map(lambda x, own: x[0] if own else x, inputs, by_samples(inputs))
    alone = model(sample)
    if (change := _change(first, alone)) <= _close(model):
        return
    compiled = _change(alone, eqx.filter_jit(model)(sample))
    assert compiled <= _close(model), (
        f"jit: the compiled model gives other outputs ({compiled:.1e}); use arrays of JAX, and "
        "no state that changes from call to call"
    )
    raise AssertionError(
        f"batch: a sample alone has other outputs than in a batch ({change:.1e}); count axes "
        "from the end, and no mean over samples"
    )


def _text_of(inputs: PyTree) -> PyTree:
    """The part of the inputs that outputs belong to."""
    return inputs.text if isinstance(inputs, SourceAndText) else inputs


def _seen(part: PyTree) -> np.ndarray | None:
    """The tokens of a batch that are not padding."""
    if isinstance(part, Text) and part.mask is not None:
        return np.broadcast_to(np.asarray(part.mask, bool), part.tokens.shape)
    if isinstance(part, Field) and part.domain.weights is not None:
        return np.broadcast_to(np.asarray(part.domain.weights) > 0, part.values.shape[:2])
    return None


def _seen_outputs(model: Model, inputs: PyTree) -> np.ndarray | None:
    """The outputs of a batch, by its first two axes, that are not padding."""
    seen = _seen(_text_of(inputs))
    if seen is None:
        return None
    learned = np.ones((len(seen), model.inputs.prefix_tokens), bool)
    after = np.concatenate([learned, seen], axis=1)
    outputs = eqx.filter_eval_shape(model, inputs)
    return after if after.shape in [x.shape[:2] for x in jax.tree.leaves(outputs)] else seen


def _check_padding(
    model: Model, inputs: PyTree, outputs: PyTree, seen: np.ndarray | None
) -> None:
    def other(part: PyTree) -> PyTree:
        shown = _seen(part)
        if shown is None:
            return part
        if isinstance(part, Text):
            tokens = np.asarray(part.tokens)
            return part._replace(tokens=np.where(shown, tokens, (tokens + 1) % tokens.max()))
        values = np.asarray(part.values)
        hidden = ~shown.reshape(*shown.shape, *[1] * (values.ndim - 2))
        return part._replace(values=values + hidden)

    def whole(part: PyTree) -> bool:
        return isinstance(part, Text | Field)

    if all(_seen(x) is None for x in jax.tree.leaves(inputs, is_leaf=whole)):
        return
    padded = jax.tree.map(other, inputs, is_leaf=whole)
    change = _change(outputs, _outputs_and_gradient(model, padded, seen)[0], seen)
    assert change <= _close(model), (
        f"padding: what stands there changes the outputs of others ({change:.1e}); give the "
        "domain weights that are zero there, `domain.padded(mask)`"
    )


def _check_causal(
    model: Model, inputs: PyTree, outputs: PyTree, seen: np.ndarray | None
) -> None:
    given = _text_of(inputs)
    tokens = np.array(as_text(given).tokens)
    first = tokens.shape[-1] // 2
    tokens[:, first:] = (tokens[:, first:] + 1) % max(tokens.max(), 1)
    other: Any = given._replace(tokens=tokens) if isinstance(given, Text) else tokens
    if isinstance(inputs, SourceAndText):
        other = inputs._replace(text=other)
    changed, _ = _outputs_and_gradient(model, other, seen)
    change = _change(
        outputs, changed, np.arange(tokens.shape[-1]) < np.full((len(tokens), 1), first)
    )
    assert change <= _close(model), (
        f"causal: outputs before token {first} depend on the tokens from there on "
        f"({change:.1e}); build attention with causal=True"
    )


def _check_gradient(
    model: Model,
    inputs: PyTree,
    gradient: PyTree,
    fixed: Callable[[Any], PyTree],
    seen: np.ndarray | None,
) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(x).all(), f"gradient: that of model{name} is NaN or infinite"
    draw = np.random.default_rng(0).standard_normal
    total = sum(x.size for x in _weights(model))
    direction = jax.tree.map(
        lambda x: np.asarray(draw(x.shape) / np.sqrt(total), x.dtype),
        eqx.filter(model, eqx.is_inexact_array),
    )
    if _weights(fixed(model)):
        direction = eqx.tree_at(fixed, direction, replace_fn=np.zeros_like)
    step = _rounding(model) ** (1 / 3)

    def at(distance: float) -> float:
        moved = jax.tree.map(
            lambda d, w: w if d is None else np.asarray(w) + distance * d,
            direction,
            model,
            is_leaf=lambda x: x is None,
        )
        outputs, _ = _outputs_and_gradient(moved, inputs, seen)
        return float(_total(jax.tree.map(lambda x: np.asarray(x, float), outputs), seen, np))

    quotient = (at(step) - at(-step)) / (2 * step)
    along = jax.tree.map(lambda g, d: float(np.sum(np.asarray(g) * d)), gradient, direction)
    found = sum(jax.tree.leaves(along))
    size = np.sqrt(sum(float(np.sum(np.asarray(g) ** 2)) for g in jax.tree.leaves(gradient)))
    assert abs(quotient - found) <= 1e3 * step**2 * (size + abs(quotient)), (
        f"gradient: {found:.6e} along a direction of the weights, but the difference quotient "
        f"is {quotient:.6e}; weights that have none on purpose are `fixed`"
    )


def _check_meshes(model: Model, inputs: PyTree, outputs: PyTree) -> None:
    number = model.control.num_intervals
    steps = model.discretization.steps_per_interval
    given: dict[str, Any] = {"intervals": number}
    if model.discretization.stepsize_controller is None:
        given["steps_per_interval"] = steps
    if model.space is not None:
        given["width"] = model.features
    doubled = {name: 2 * x for name, x in given.items()}

    def on_other(model: Model, inputs: PyTree) -> PyTree:
        other = model.on(Mesh(**doubled))
        for part in other.equations:
            assert part.control.num_intervals == 2 * number, (
                f"mesh: {part.control.num_intervals} intervals on a mesh of {2 * number}"
            )
        return other(inputs)

    try:
        found = eqx.filter_eval_shape(on_other, model, inputs)
    except InputError as error:
        raise AssertionError(f"mesh: the model is on no other: {error}") from error
    shapes = jax.tree.map(lambda x: x.shape, found)
    wanted = jax.tree.map(lambda x: x.shape, outputs)
    assert shapes == wanted, f"mesh: outputs {shapes} on another mesh, and {wanted} before"
    own, back = _on_own_mesh_and_back(model, Mesh(**given), Mesh(**doubled))
    if {part.control.num_intervals for part in model.equations} == {number}:
        own = model
    assert _same(own, back, _close(model)), (
        f"mesh: on {2 * number} intervals and back on {number} the model has other weights"
    )


@eqx.filter_jit
def _on_own_mesh_and_back(model: Model, own: Mesh, other: Mesh) -> tuple[Model, Model]:
    return model.on(own), model.on(own).on(other).on(own)


def _same(model: PyTree, other: PyTree, close: float = 0.0) -> bool:
    """Whether trees are equal, arrays up to rounding; in NumPy, which compiles nothing."""
    arrays, others = eqx.filter((model, other), eqx.is_array)
    rest, other_rest = eqx.filter((model, other), eqx.is_array, inverse=True)
    if not eqx.tree_equal(rest, other_rest, typematch=True):
        return False
    pairs = zip(jax.tree.leaves(arrays), jax.tree.leaves(others), strict=True)
    return all(
        x.dtype == y.dtype and x.shape == y.shape and np.allclose(x, y, close, close)
        for x, y in pairs
    )


def _check_cache(model: Model, inputs: PyTree, outputs: PyTree) -> None:
    if not isinstance(model.read_out, TokenLogits) or type(model.inputs) is not TextInputs:
        return
    if why_not_cached(model) is not None:
        return
    text = as_text(inputs)
    tokens, seen = jnp.asarray(text.tokens[0]), _seen(jax.tree.map(lambda x: x[:1], text))
    first = (len(tokens) + 1) // 2
    logits = jnp.concatenate([outputs[0, : first - 1], logits_one_by_one(model, tokens, first)])
    change = _change(outputs[:1], logits[None], seen)
    assert change <= _close(model), (
        f"cache: logits token by token are not those of the whole text ({change:.1e})"
    )


@eqx.filter_jit
def logits_one_by_one(
    model: Model[TextInputs, TokenLogits], tokens: Array, first: int
) -> Array:
    """The logits of the token after each from the prompt on, the `first` tokens, which are read
    in one pass, and the others one by one."""
    decoder = CachedDecoder(model, tokens.shape[-1])
    logits, cache = decoder.prefill(tokens[..., :first])

    def read(cache: PyTree, position: Array) -> tuple[PyTree, Array]:
        token = jax.lax.dynamic_index_in_dim(tokens, position, -1, keepdims=False)
        logits, cache = decoder.extend(token, position, cache)
        return cache, logits

    _, others = jax.lax.scan(read, cache, jnp.arange(first, tokens.shape[-1]))
    return jnp.moveaxis(jnp.concatenate([logits[None], others]), 0, -2)


def _check_copies(model: Model) -> None:
    def saved() -> Model:
        file = io.BytesIO()
        eqx.tree_serialise_leaves(file, model)
        file.seek(0)
        return eqx.tree_deserialise_leaves(
            file,
            jax.tree.map(lambda x: np.zeros(x.shape, x.dtype) if eqx.is_array(x) else x, model),
        )

    for name, copied in (
        ("saved and loaded", saved),
        ("pickled", lambda: pickle.loads(pickle.dumps(model))),
        ("by a deep copy", lambda: copy.deepcopy(model)),
    ):
        try:
            same = _same(copied(), model)
        except Exception as error:
            raise AssertionError(
                f"copied: the model cannot be {name}: {error}; define functions and classes "
                "that it keeps at the top of a module"
            ) from error
        assert same, f"copied: {name} it is another model"
