"""Post-norm encoders of texts: one builder and one table for BERT and its relatives. They are
Lie–Trotter with Euler sub-steps and a projection after each."""

import functools as ft
from collections.abc import Callable, Iterator, Mapping, Set
from typing import NamedTuple

import diffrax
import jax.numpy as jnp

from ..equation import Attention, FeedForward, Linear, PiecewiseConstant, Tied
from ..models import Discretization, MaskedTokenHead, TextEncoder
from ..solvers import LieTrotter, Projected
from .builders import any_key, block_maker, dense, has, layer_norm
from .family import ACTIVATIONS
from .options import Options
from .placement import Placement, block, linear, linears, norm


class HeadNames(NamedTuple):
    """Names of the tensors of a masked-token head."""

    dense: str
    normalization: str
    bias: str
    readout: str


class PostNormNames(NamedTuple):
    """Names of the tensors of a family of post-norm encoders.

    - `layer`: the name of a layer, which the names in the next three begin with.
    - `attention`, `feed_forward`: the names of the linear maps, by their attributes.
    - `norms`: the names of the normalisations after the two operators.
    - `head`: the names of the masked-token head.
    - `pooler`: the name of the pooler.
    """

    layer: str
    attention: Mapping[str, str]
    feed_forward: Mapping[str, str]
    norms: tuple[str, str]
    head: HeadNames
    pooler: str = "pooler.dense"


def post_norm_encoder(
    options: Options,
    tensors: Set[str],
    names: PostNormNames,
    *,
    segments: int | None = None,
    embedded: int | None = None,
    first_position: int = 0,
    activation: str = "gelu",
    control: type[PiecewiseConstant] | type[Tied] = PiecewiseConstant,
) -> TextEncoder:
    """A post-norm encoder by the options of BERT.

    **Arguments:**

    - `tensors`: the names of the tensors in the checkpoint.
    - `segments`: the number of kinds of sentences; `None` where they are not distinguished.
    - `embedded`: the width of embedded tokens; `None` for that of the state.
    - `first_position`: see `TextEncoder`.
    - `activation`: the default.
    - `control`: ordinary layers, or one block for all layers.
    """
    options.allow("position_embedding_type", "absolute", None)
    width, number = options.get("hidden_size"), options.get("num_hidden_layers")
    eps, places = options.get("layer_norm_eps", 1e-12), options.get("max_position_embeddings")
    function = options.choose("hidden_act", ACTIVATIONS, activation)
    entered = width if embedded is None else embedded

    make_block = block_maker(
        ft.partial(Attention, width, options.get("num_attention_heads")),
        ft.partial(FeedForward, width, options.get("intermediate_size"), activation=function),
    )
    return TextEncoder(
        jnp.zeros((options.get("vocab_size"), entered)),
        positions=jnp.zeros((places, entered)),
        segments=None if segments is None else jnp.zeros((segments, entered)),
        lift=None if embedded is None else dense(embedded, width),
        control=control.build(make_block, number, key=any_key()),
        constraint=control.build(
            lambda key: (layer_norm(width, eps), layer_norm(width, eps)), number, key=any_key()
        ),
        discretization=Discretization(LieTrotter(Projected(diffrax.Euler()))),
        context=places - first_position,
        first_position=first_position,
        input_normalization=layer_norm(entered, eps),
        pooler=dense(width, width) if has(tensors, names.pooler) else None,
        head=_head(options, dense(width, entered), eps, function)
        if has(tensors, names.head.dense)
        else None,
    )


def _head(options: Options, inner: Linear, eps: float, activation: Callable) -> MaskedTokenHead:
    vocabulary, embedded = options.get("vocab_size"), inner.weight.shape[1]
    tied = options.get("tie_word_embeddings", True)
    return MaskedTokenHead(
        dense=inner,
        normalization=layer_norm(embedded, eps),
        readout=None if tied else jnp.zeros((vocabulary, embedded)),
        bias=jnp.zeros(vocabulary),
        activation=activation,
    )


def post_norm_table(model: TextEncoder, names: PostNormNames) -> Iterator[Placement]:
    """The places of all weights but those of `lift`."""
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "embeddings.word_embeddings.weight")
    yield Placement(model.positions, "embeddings.position_embeddings.weight")
    if model.segments is not None:
        yield Placement(model.segments, "embeddings.token_type_embeddings.weight")
    yield from norm(model.input_normalization, "embeddings.LayerNorm")
    yield from linears(attention, names.layer, **names.attention)
    yield from linears(feed_forward, names.layer, **names.feed_forward)
    for part, name in zip(block(model.constraint), names.norms, strict=True):
        yield from norm(part, f"{names.layer}.{name}")
    if model.pooler is not None:
        yield from linear(model.pooler, names.pooler)
    if model.head is not None:
        yield from linear(model.head.dense, names.head.dense)
        yield from norm(model.head.normalization, names.head.normalization)
        yield Placement(model.head.bias, names.head.bias)
        if model.head.readout is not None:
            yield Placement(model.head.readout, names.head.readout)
