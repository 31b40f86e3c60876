"""Post-norm encoders of texts: one builder and one table for BERT and its relatives. They are
Lie–Trotter with Euler sub-steps and a projection after each."""

from collections.abc import Callable, Iterator, Mapping, Set
from typing import NamedTuple

import jax.numpy as jnp

from ..equation import Linear, PiecewiseConstant, Tied
from ..models import Discretization, MaskedTokenHead, TextEncoder
from ..solvers import LieTrotter
from . import make
from .options import Options
from .placement import Placement, block, linear, linears, norm


# Dropout.
HARMLESS = "attention_probs_dropout_prob classifier_dropout hidden_dropout_prob"


class PostNormNames(NamedTuple):
    """Names of the tensors of a family of post-norm encoders.

    - `layer`: the name of a layer, which the names in the next three begin with.
    - `attention`, `feed_forward`: the names of the linear maps, by their attributes.
    - `norms`: the names of the normalisations after the two operators.
    - `head`: the names of `dense`, `normalization`, `bias` and `decoder` of the masked-token
      head; the decoder has a bias of its own where its matrix is not that of the embedding.
    - `pooler`: the name of the pooler.
    """

    layer: str
    attention: Mapping[str, str]
    feed_forward: Mapping[str, str]
    norms: tuple[str, str]
    head: Mapping[str, str]
    pooler: str = "pooler.dense"

    @property
    def copies(self) -> dict[str, str]:
        """See `Family`: the decoder of a tied head."""
        decoder = self.head["decoder"]
        return {
            f"{decoder}.weight": "embeddings.word_embeddings.weight",
            f"{decoder}.bias": self.head["bias"],
        }


def post_norm_encoder(
    options: Options,
    tensors: Set[str],
    names: PostNormNames,
    *,
    eps: float,
    segments: int | None = None,
    embedded: int | None = None,
    padding: int | None = None,
    activation: str = "gelu",
    head_activation: Callable | None = None,
    control: type[PiecewiseConstant] | type[Tied] = PiecewiseConstant,
) -> TextEncoder:
    """A post-norm encoder by the options of BERT.

    **Arguments:**

    - `tensors`: the names of the tensors in the checkpoint.
    - `eps`: of the normalisations.
    - `segments`: the number of kinds of sentences; `None` where they are not distinguished.
    - `embedded`: the width of embedded tokens; `None` for that of the state.
    - `padding`: see `TextEncoder`.
    - `activation`: the default.
    - `head_activation`: that of the masked-token head; `None` for that of the layers.
    - `control`: ordinary layers, or one block for all layers.
    """
    options.allow("position_embedding_type", "absolute", None)
    width, number = options.size("hidden_size"), options.size("num_hidden_layers")
    tied, context = options.flag("tie_word_embeddings", True), _context(options, padding)
    function = options.choose("hidden_act", make.ACTIVATIONS, activation)
    entered = width if embedded is None else embedded

    make_block = make.block(
        make.attention(options), make.feed_forward(options, activation=activation)
    )
    return TextEncoder(
        jnp.zeros((options.size("vocab_size"), entered)),
        positions=jnp.zeros((options.size("max_position_embeddings"), entered)),
        segments=None if segments is None else jnp.zeros((segments, entered)),
        lift=None if embedded is None else make.dense(embedded, width),
        control=control.build(make_block, number, key=make.any_key()),
        constraint=control.build(
            lambda key: (make.layer_norm(width, eps), make.layer_norm(width, eps)),
            number,
            key=make.any_key(),
        ),
        discretization=Discretization(LieTrotter()),
        context=context,
        padding=padding,
        input_normalization=make.layer_norm(entered, eps),
        pooler=make.dense(width, width) if make.has(tensors, names.pooler) else None,
        head=_head(options, make.dense(width, entered), eps, head_activation or function, tied)
        if make.has(tensors, names.head["dense"])
        else None,
    )


def _context(options: Options, padding: int | None) -> int:
    """The longest text: rows up to that of the padding token stand for no position."""
    places = options.size("max_position_embeddings")
    if padding is None:
        return places
    if places <= padding + 1:
        raise options.refused("max_position_embeddings", places, f"not above {padding + 1}")
    return places - padding - 1


def _head(
    options: Options, inner: Linear, eps: float, activation: Callable, tied: bool
) -> MaskedTokenHead:
    vocabulary, embedded = options.size("vocab_size"), inner.weight.shape[1]
    return MaskedTokenHead(
        dense=inner,
        normalization=make.layer_norm(embedded, eps),
        readout=None if tied else jnp.zeros((vocabulary, embedded)),
        bias=jnp.zeros(vocabulary),
        activation=activation,
    )


def post_norm_table(model: TextEncoder, names: PostNormNames) -> Iterator[Placement]:
    """The places of all weights but those of `lift`."""
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "embeddings.word_embeddings.weight")
    yield Placement(model.positions, "embeddings.position_embeddings.weight")
    yield Placement(model.segments, "embeddings.token_type_embeddings.weight")
    yield from norm(model.input_normalization, "embeddings.LayerNorm")
    yield from linears(attention, names.layer, **names.attention)
    yield from linears(feed_forward, names.layer, **names.feed_forward)
    for part, name in zip(block(model.constraint), names.norms, strict=True):
        yield from norm(part, f"{names.layer}.{name}")
    yield from linear(model.pooler, names.pooler)
    if model.head is not None:
        yield from linear(model.head.dense, names.head["dense"])
        yield from norm(model.head.normalization, names.head["normalization"])
        tied, decoder = model.head.readout is None, names.head["decoder"]
        yield Placement(model.head.bias, names.head["bias"] if tied else f"{decoder}.bias")
        yield Placement(model.head.readout, f"{decoder}.weight")
