"""ReplaceMe: replaces layers by a linear map of the feed-forward before them."""

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


# The number of samples whose states are in memory at once.
_BATCH = 8


def replace_layers(model: Model, layers: Sequence[int], inputs: PyTree[ArrayLike]) -> Model:
    """ReplaceMe: leaves out the neighbouring layers i+1 … i+n, and replaces the output M_i of
    the feed-forward in layer i by `M_i T`,

        T = argmin Σ |M_i T + Y_i - L_{i+n}|² = (M_iᵀ M_i)⁻¹ M_iᵀ (L_{i+n} - Y_i),

    where L_j is the state after layer j, and `L_i = Y_i + M_i`. The sum is over the tokens of
    `inputs` without padding. T is a factor of the output weights, so `save_pretrained` writes
    the result as an ordinary checkpoint. Reference: Shopkhoev et al., arXiv 2505.02819.

    Only a map of M_i can become weights. A map of the state cannot, since the residual
    connection carries u past all weights of a layer.

    **Arguments:**

    - `model`: a pre-norm model that ends each layer with a feed-forward, with one step of
      `LieTrotter()` or, for parallel blocks, `Euler()` in each layer.
    - `layers`: the layers to leave out, see also `least_turned`; layer 0 is the first.
    - `inputs`: the calibration batch; its first axis are the samples. Targets are not needed.

    **Raises:** `InputError` for other models, for layers that are not neighbours or begin with
    layer 0, and for fewer tokens than features.
    """
    layers = list(layers)
    _check_replaceable(model, layers)
    first = layers[0]
    gram = cross = np.zeros(())
    tokens = 0
    for part in _split_batch(inputs):
        *pair, is_token = _states_at_cut(model, first, len(layers), part)
        outputs, targets = (np.asarray(x, np.float64)[np.asarray(is_token)] for x in pair)
        gram = gram + outputs.T @ outputs
        cross = cross + outputs.T @ targets
        tokens += len(outputs)
    if tokens < len(gram):
        raise InputError(
            f"replace_layers: {tokens} tokens do not determine a map of {len(gram)} features; "
            "pass more inputs."
        )
    matrix = np.linalg.lstsq(gram, cross, rcond=None)[0]
    layered = eqx.tree_at(
        lambda m: stacked_operators(m)[-1],
        in_layers(model),
        replace_fn=lambda x: _multiply_rate(x, first - 1, jnp.asarray(matrix)),
    )
    remaining = [layer for layer in range(model.layers) if layer not in layers]
    return take_layers(layered, whole_layers(remaining, model.equation.num_operators))


def least_turned(model: Model, number: int, inputs: PyTree[ArrayLike]) -> range:
    """The `number` neighbouring layers, without layer 0, that turn the state least. A turn is
    the mean over tokens of `1 - cos(u, v)`, with the states u before and v after the layers.
    ReplaceMe and ShortGPT (Men et al., arXiv 2403.03853) choose layers in this way."""
    if not 0 < number < model.layers:
        raise InputError(f"least_turned: {number=} must be 1 to {model.layers - 1}.")
    first = 1 + int(np.argmin(mean_turns(model, number, inputs)[1:]))
    return range(first, first + number)


def mean_turns(
    model: Model, num_layers: int, inputs: PyTree[ArrayLike]
) -> Float[np.ndarray, " cuts"]:
    """The mean over tokens of `1 - cos(L_i, L_{i+n})`, without padding, for each i."""
    parts = [_sum_turns(model, num_layers, part) for part in _split_batch(inputs)]
    total, tokens = (np.sum(x, axis=0, dtype=float) for x in zip(*parts, strict=True))
    return total / tokens


def _check_replaceable(model: Model, layers: list[int]) -> None:
    first = layers[0] if layers else 0
    are_neighbours = layers == list(range(first, first + len(layers)))
    if not are_neighbours or not 0 < first <= model.layers - len(layers):
        raise InputError(
            f"replace_layers: {layers=} must be neighbours among 1 to {model.layers - 1}."
        )
    is_prenorm = any(eqx.tree_equal(model.solver, x) for x in (LieTrotter(), diffrax.Euler()))
    is_prenorm &= all(isinstance(x, Free) for x in parts(model.constraint, AbstractConstraint))
    *_, last = model.control(0.0)
    ends_with_feed_forward = isinstance(last.innermost, AbstractFeedForward)
    if not is_prenorm or model.steps != 1 or not ends_with_feed_forward:
        raise InputError(
            "replace_layers: it needs a pre-norm model whose layers end with a feed-forward, "
            "with one step of LieTrotter() or Euler() in each; for others use keep_layers or "
            "coarsen."
        )


def _split_batch(inputs: PyTree[ArrayLike]) -> Iterator[PyTree[Array]]:
    """Yields parts of a batch whose states fit into memory."""
    batch = jax.tree.map(jnp.asarray, inputs)
    per_sample, shared = eqx.partition(batch, by_samples(batch))
    samples = jax.tree.leaves(per_sample)[0].shape[0]
    for start in range(0, samples, _BATCH):
        part = jax.tree.map(lambda x, start=start: x[start : start + _BATCH], per_sample)
        yield eqx.combine(part, shared)


def _march_states(model: Model, inputs: PyTree[Array]) -> tuple[March, Array, Array]:
    """The march, its states, and the mask of real tokens."""
    march = March.of("states", model, inputs)
    states = march.states(march.no_pushes)
    weights = march.equation.domain.weights
    shape = states.shape[1:-1]
    is_token = (
        jnp.ones(shape, bool) if weights is None else jnp.broadcast_to(weights > 0, shape)
    )
    return march, states, is_token


@eqx.filter_jit
def _states_at_cut(
    model: Model, first: int, num_layers: int, inputs: PyTree[Array]
) -> tuple[Array, Array, Array]:
    """`M_i`, `L_{i+n} - Y_i`, and the mask of real tokens."""
    march, states, is_token = _march_states(model, inputs)
    length = march.equation.control.interval_length
    t = (first - 1) * length
    y = x = states[first - 1]
    parallel = isinstance(model.solver, diffrax.Euler)
    *before, feed_forward = march.equation.terms_of(first - 1).terms
    for term in before:
        y = y + length * term.vf(t, x if parallel else y, None)
    output = length * feed_forward.vf(t, x if parallel else y, None)
    return output, states[first + num_layers] - y, is_token


@eqx.filter_jit
def _sum_turns(
    model: Model, num_layers: int, inputs: PyTree[Array]
) -> tuple[Float[Array, " cuts"], Array]:
    """The sum over tokens of `1 - cos(L_i, L_{i+n})` for each i, and the number of tokens."""
    _, states, is_token = _march_states(model, inputs)
    units = states / jnp.linalg.norm(states, axis=-1, keepdims=True)
    turns = 1 - jnp.sum(units[:-num_layers] * units[num_layers:], axis=-1)
    total = jnp.sum(jnp.where(is_token, turns, 0), axis=tuple(range(1, turns.ndim)))
    return total, jnp.sum(is_token)


def _multiply_rate(
    operator: AbstractOperator, layer: int, matrix: Float[Array, "features features"]
) -> AbstractOperator:
    """Multiplies the rate of an operator in one layer by a matrix. Step sizes move before it:
    `(λ ⊙ A) T = A (diag(λ) T)`."""
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
    return with_fields(operator, operator=_multiply_rate(operator.operator, layer, matrix))
