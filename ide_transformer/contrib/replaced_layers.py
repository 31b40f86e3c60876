"""Replaces layers by a linear map of the feed-forward before them."""

from collections.abc import Iterator, Sequence

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.dynamics import (
    March,
    in_layers,
    stacked_operators,
    take_layers,
    whole_layers,
)
from ide_transformer.equation import (
    AbstractConstraint,
    AbstractFeedForward,
    AbstractOperator,
    AbstractWrappedOperator,
    Free,
    Scaled,
    by_samples,
    parts,
    with_fields,
)
from ide_transformer.errors import InputError
from ide_transformer.models import Model
from ide_transformer.solvers import LieTrotter


# Samples of which the states are in memory at once.
_BATCH = 8


def replace_layers(model: Model, layers: Sequence[int], inputs: PyTree[ArrayLike]) -> Model:
    """ReplaceMe: leave out the neighbouring layers i+1 … i+n, and let the feed-forward of layer
    i write `M_i T` instead of `M_i`,

        T = argmin Σ |M_i T + Y_i - L_{i+n}|² = (M_iᵀ M_i)⁻¹ M_iᵀ (L_{i+n} - Y_i),

    over the tokens of `inputs` without padding, where L_j is the state after layer j,
    `L_i = Y_i + M_i`, and M_i is what the feed-forward adds. T is a factor of its output
    weights, so `save_pretrained` writes the result as an ordinary checkpoint. Reference:
    Shopkhoev et al., arXiv 2505.02819.

    Only a map of M_i can become weights. A map of the whole state cannot: the residual
    connection carries u past all weights of a layer.

    **Arguments:**

    - `model`: a pre-norm model that ends each layer with a feed-forward, with one step of
      `LieTrotter()` or, for parallel blocks, `Euler()` in each layer.
    - `layers`: the layers to leave out, see also `least_turned`; layer 0 is the first.
    - `inputs`: the calibration batch, its first axis the samples. No targets are needed.

    **Raises:** `InputError` for other models, for layers that are not neighbours or begin with
    layer 0, and for fewer tokens than features.
    """
    first, number = _checked(model, layers)
    gram = cross = np.zeros(())
    tokens = 0
    for part in _batches(inputs):
        *pair, counted = _at_cut(model, first, number, part)
        written, missing = (np.asarray(x, np.float64)[np.asarray(counted)] for x in pair)
        gram = gram + written.T @ written
        cross = cross + written.T @ missing
        tokens += len(written)
    if tokens < len(gram):
        raise InputError(
            f"replace_layers: {tokens} tokens do not determine a map of {len(gram)} features; "
            "give more inputs."
        )
    matrix = np.linalg.lstsq(gram, cross, rcond=None)[0]
    layered = eqx.tree_at(
        lambda m: stacked_operators(m)[-1],
        in_layers(model),
        replace_fn=lambda x: _mapped(x, first - 1, jnp.asarray(matrix)),
    )
    layers_left = [*range(first), *range(first + number, model.layers)]
    return take_layers(layered, whole_layers(layers_left, model.equation.num_operators))


def least_turned(model: Model, number: int, inputs: PyTree[ArrayLike]) -> range:
    """The `number` neighbouring layers, without layer 0, over which the state turns least: the
    mean over tokens of `1 - cos(u, v)`, u and v the states before and after them. ReplaceMe
    and ShortGPT (Men et al., arXiv 2403.03853) choose layers so."""
    if not 0 < number < model.layers:
        raise InputError(f"least_turned: {number=}: give 1 to {model.layers - 1}.")
    first = 1 + int(np.argmin(mean_turns(model, number, inputs)[1:]))
    return range(first, first + number)


def mean_turns(
    model: Model, number: int, inputs: PyTree[ArrayLike]
) -> Float[np.ndarray, " cuts"]:
    """The mean over tokens of `1 - cos(L_i, L_{i+n})`, without padding, for each i."""
    parts = [_turns(model, number, part) for part in _batches(inputs)]
    total, tokens = (np.sum(x, axis=0, dtype=float) for x in zip(*parts, strict=True))
    return total / tokens


def _checked(model: Model, layers: Sequence[int]) -> tuple[int, int]:
    """The first of the layers and how many there are."""
    gone = list(layers)
    first = gone[0] if gone else 0
    neighbours = gone == list(range(first, first + len(gone)))
    if not neighbours or not 0 < first <= model.layers - len(gone):
        raise InputError(
            f"replace_layers: layers={gone}: pass neighbours among 1 to {model.layers - 1}."
        )
    native = any(eqx.tree_equal(model.solver, x) for x in (LieTrotter(), diffrax.Euler()))
    native &= all(isinstance(x, Free) for x in parts(model.constraint, AbstractConstraint))
    *_, last = model.control(0.0)
    if native and model.steps == 1 and isinstance(last.innermost, AbstractFeedForward):
        return first, len(gone)
    raise InputError(
        "replace_layers: it needs a pre-norm model whose layers end with a feed-forward, with "
        "one step of LieTrotter() or Euler() in each; for others take keep_layers or coarsen."
    )


def _batches(inputs: PyTree[ArrayLike]) -> Iterator[PyTree[Array]]:
    """Parts of a batch whose states fit into memory."""
    batch = jax.tree.map(jnp.asarray, inputs)
    own, shared = eqx.partition(batch, by_samples(batch))
    samples = jax.tree.leaves(own)[0].shape[0]
    for start in range(0, samples, _BATCH):
        part = jax.tree.map(lambda x, start=start: x[start : start + _BATCH], own)
        yield eqx.combine(part, shared)


def _marched_states(model: Model, inputs: PyTree[Array]) -> tuple[March, Array, Array]:
    """The march, its states, and which tokens are no padding."""
    march = March.of("states", model, inputs)
    states = march.states(march.no_pushes)
    weights = march.equation.domain.weights
    shape = states.shape[1:-1]
    counted = jnp.ones(shape, bool) if weights is None else jnp.broadcast_to(weights > 0, shape)
    return march, states, counted


@eqx.filter_jit
def _at_cut(
    model: Model, first: int, number: int, inputs: PyTree[Array]
) -> tuple[Array, Array, Array]:
    """`M_i`, `L_{i+n} - Y_i`, and which tokens are no padding."""
    march, states, counted = _marched_states(model, inputs)
    length = march.equation.control.interval_length
    t = (first - 1) * length
    y = x = states[first - 1]
    parallel = isinstance(model.solver, diffrax.Euler)
    *before, feed_forward = march.equation.terms_of(first - 1).terms
    for term in before:
        y = y + length * term.vf(t, x if parallel else y, None)
    written = length * feed_forward.vf(t, x if parallel else y, None)
    return written, states[first + number] - y, counted


@eqx.filter_jit
def _turns(
    model: Model, number: int, inputs: PyTree[Array]
) -> tuple[Float[Array, " cuts"], Array]:
    """The sum over tokens of `1 - cos(L_i, L_{i+n})` for each i, and the number of tokens."""
    _, states, counted = _marched_states(model, inputs)
    units = states / jnp.linalg.norm(states, axis=-1, keepdims=True)
    turns = 1 - jnp.sum(units[:-number] * units[number:], axis=-1)
    total = jnp.sum(jnp.where(counted, turns, 0), axis=tuple(range(1, turns.ndim)))
    return total, jnp.sum(counted)


def _mapped(
    operator: AbstractOperator, layer: int, matrix: Float[Array, "features features"]
) -> AbstractOperator:
    """The operator whose rate in one layer is multiplied by a matrix. Step sizes of the layer
    come before the matrix: `(λ ⊙ A) T = A (diag(λ) T)`."""
    if isinstance(operator, AbstractFeedForward):

        def times(x: Array) -> Array:
            return x.at[layer].set((x[layer] @ matrix).astype(x.dtype))

        return with_fields(operator, outer=jax.tree.map(times, operator.outer))
    assert isinstance(operator, AbstractWrappedOperator)
    if isinstance(operator, Scaled):
        rates = operator.rate
        rate = jnp.broadcast_to(rates[layer], matrix.shape[:1])
        matrix = rate[:, None] * matrix
        operator = with_fields(operator, rate=rates.at[layer].set(1.0))
    return with_fields(operator, operator=_mapped(operator.operator, layer, matrix))
