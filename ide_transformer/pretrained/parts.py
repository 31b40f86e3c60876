"""Parts that the builders of families share. The weights are of any value: they are replaced
by those of a checkpoint."""

import math
from collections.abc import Callable, Set
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Attention,
    FeedForward,
    Free,
    LayerNorm,
    Linear,
    PiecewiseConstant,
    RMSNorm,
    Rotary,
    Tied,
)
from ..models import Discretization, MaskedTokenHead
from ..solvers import LieTrotter, Projected
from .fields import Fields


KEY = jax.random.key(0)

# The native schemes of the families.
PRE_NORM = Discretization(LieTrotter(diffrax.Euler()))
POST_NORM = Discretization(LieTrotter(Projected(diffrax.Euler())))
PARALLEL = Discretization(diffrax.Euler())


def layer_norm(features: int, eps: float) -> LayerNorm:
    return LayerNorm(jnp.ones(features), jnp.zeros(features), eps=eps)


def rms_norm(features: int, eps: float) -> RMSNorm:
    return RMSNorm(jnp.ones(features), eps=eps)


def dense(features_in: int, features_out: int) -> Linear:
    return Linear(features_in, features_out, bias=True, std=0.02, key=KEY)


def layers(make_block: Callable[[Any], PyTree], number: int) -> PiecewiseConstant:
    """Ordinary layers: a block of its own for each."""
    return PiecewiseConstant.build(make_block, number, key=KEY)


def tied(make_block: Callable[[Any], PyTree], number: int) -> Tied:
    """One block for all layers."""
    return Tied.build(make_block, number, key=KEY)


def block_maker(
    features: int,
    heads: int,
    hidden: int,
    activation: Callable,
    *,
    normalization: Callable[[], AbstractConstraint] = Free,
    **attention: Any,
) -> Callable[[Any], tuple[Attention, FeedForward]]:
    """Makes blocks of attention and feed-forward.

    **Arguments:**

    - `normalization`: makes that of the input of each operator.
    - `attention`: other options of the attention.
    """

    def block(key):
        keys = jax.random.split(key)
        return (
            Attention(features, heads, normalization=normalization(), key=keys[0], **attention),
            FeedForward(
                features,
                hidden,
                activation=activation,
                normalization=normalization(),
                key=keys[1],
            ),
        )

    return block


def masked_token_head(
    fields: Fields, features: int, embedded: int, eps: float, activation: Callable
) -> MaskedTokenHead:
    """A head of the vocabulary and the ties that the options name."""
    vocabulary = fields.get("vocab_size")
    tied = fields.get("tie_word_embeddings", True)
    return MaskedTokenHead(
        dense=dense(features, embedded),
        normalization=layer_norm(embedded, eps),
        readout=None if tied else jnp.zeros((vocabulary, embedded)),
        bias=jnp.zeros(vocabulary),
        activation=activation,
    )


def post_norms(
    features: int, eps: float, number: int, build: Callable = layers
) -> AbstractControl:
    """A layer normalisation after each of two operators."""
    return build(lambda key: (layer_norm(features, eps), layer_norm(features, eps)), number)


def rotary(fields: Fields, head_features: int) -> Rotary:
    """Rotary positions by the options of either generation of checkpoints: `rope_theta` and
    `rope_scaling`, or `rope_parameters`.

    **Raises:** `InputError` for a kind of scaling that is not known.
    """
    options = dict(fields.get("rope_parameters", None) or {})
    options |= fields.get("rope_scaling", None) or {}
    scaling = Fields(options, fields.file)
    fraction = scaling.get("partial_rotary_factor", fields.get("partial_rotary_factor", 1.0))
    features = int(head_features * fraction)
    base = scaling.get("rope_theta", fields.get("rope_theta", 10000.0))
    name = "rope_type" if "rope_type" in options or "type" not in options else "type"
    stretch = None
    match scaling.allow(name, "default", "linear", "llama3"):
        case "linear":
            stretch = (float(scaling.get("factor")),) * (features // 2)
        case "llama3":
            stretch = _llama3_stretch(scaling, base, features // 2)
    return Rotary(base, None if features == head_features else features, stretch)


def _llama3_stretch(scaling: Fields, base: float, half: int) -> tuple[float, ...]:
    """Long waves are stretched by a factor, short ones not, with a smooth change between.
    Reference: the Llama 3.1 release."""
    factor = scaling.get("factor")
    low, high = scaling.get("low_freq_factor"), scaling.get("high_freq_factor")
    wavelengths = 2 * math.pi * base ** (np.arange(half) / half)
    waves = scaling.get("original_max_position_embeddings") / wavelengths
    smooth = np.clip((waves - low) / (high - low), 0, 1)
    return tuple((1 / ((1 - smooth) / factor + smooth)).tolist())


def part_of(index: int, outputs: int) -> np.ndarray:
    """The rows of one of several equal parts that lie one after the other."""
    return index * outputs + np.arange(outputs)


def part_of_heads(index: int, parts: int, heads: int, head_features: int) -> np.ndarray:
    """The rows of one of `parts` parts that lie one after the other inside each head."""
    rows = np.arange(heads * parts * head_features)
    return rows.reshape(heads, parts, head_features)[:, index].reshape(-1)


def neighbours_to_halves(heads: int, head_features: int, turning: int) -> np.ndarray:
    """The rows of queries or keys whose rotary pairs are neighbours, in the order in which
    pairs lie half a width apart, as in `Rotary`."""
    first = [*range(0, turning, 2), *range(1, turning, 2), *range(turning, head_features)]
    starts = head_features * np.arange(heads)[:, None]
    return (starts + np.array(first)).reshape(-1)


def has(names: Set[str], name: str) -> bool:
    """Whether a checkpoint has tensors below that name."""
    return any(known == name or known.startswith(f"{name}.") for known in names)
