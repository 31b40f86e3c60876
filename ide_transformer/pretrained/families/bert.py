"""BERT (Devlin et al., arXiv 1810.04805), RoBERTa (Liu et al., arXiv 1907.11692), DistilBERT
(Sanh et al., arXiv 1910.01108) and ALBERT (Lan et al., arXiv 1909.11942): post-norm encoders.
They are Lie–Trotter with Euler sub-steps and a projection after each. DistilBERT has no
segments and no pooler, ALBERT one block at every depth, an autonomous equation."""

import functools as ft
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import jax.numpy as jnp

from ...equation import PiecewiseConstant, Tied, gelu
from ...models import Discretization, MaskedTokenHead, Model, TextEncoder
from ...solvers import LieTrotter
from .. import make
from ..family import Family, Placement, block, linear, norm, weights_of
from ..options import Options


class _Names(NamedTuple):
    """Names of the tensors of a family of post-norm encoders.

    - `layer`: the name of a layer, which the names in the next three begin with.
    - `attention`, `feed_forward`: the names of the linear maps, by their attributes.
    - `norms`: the names of the normalisations after the two operators.
    - `head`: the names of the map and the normalisation of the masked-token head.
    - `bias`, `decoder`: those of its read-out; the decoder has a bias of its own where its
      matrix is not that of the embedding.
    - `pooler`: the name of the pooler.
    """

    layer: str
    attention: Mapping[str, str]
    feed_forward: Mapping[str, str]
    norms: tuple[str, str]
    head: Mapping[str, str]
    bias: str
    decoder: str
    pooler: str = "pooler.dense"


_BERT = _Names(
    layer="encoder.layer.{layer}",
    attention=dict(
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        output="attention.output.dense",
    ),
    feed_forward=dict(inner="intermediate.dense", outer="output.dense"),
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    head=dict(
        dense="cls.predictions.transform.dense",
        normalization="cls.predictions.transform.LayerNorm",
    ),
    bias="cls.predictions.bias",
    decoder="cls.predictions.decoder",
)
_ROBERTA = _BERT._replace(
    head=dict(dense="lm_head.dense", normalization="lm_head.layer_norm"),
    bias="lm_head.bias",
    decoder="lm_head.decoder",
)
_DISTILBERT = _Names(
    layer="transformer.layer.{layer}",
    attention=dict(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
    ),
    feed_forward=dict(inner="ffn.lin1", outer="ffn.lin2"),
    norms=("sa_layer_norm", "output_layer_norm"),
    head=dict(dense="vocab_transform", normalization="vocab_layer_norm"),
    bias="vocab_projector.bias",
    decoder="vocab_projector",
)
_ALBERT = _Names(
    layer="encoder.albert_layer_groups.0.albert_layers.0",
    attention=dict(
        query="attention.query",
        key="attention.key",
        value="attention.value",
        output="attention.dense",
    ),
    feed_forward=dict(inner="ffn", outer="ffn_output"),
    norms=("attention.LayerNorm", "full_layer_layer_norm"),
    head=dict(dense="predictions.dense", normalization="predictions.LayerNorm"),
    bias="predictions.bias",
    decoder="predictions.decoder",
    pooler="pooler",
)


def _build(
    options: Options,
    tensors: Set[str],
    *,
    names: _Names,
    eps: float | None = None,
    segmented: bool = True,
    embedded: int | None = None,
    padding: int | None = None,
    activation: str = "gelu",
    head_activation: Callable | None = None,
    control: type[PiecewiseConstant] | type[Tied] = PiecewiseConstant,
) -> Model:
    """A post-norm encoder by the options of BERT. `embedded` is the width of embedded tokens
    where it is not that of the state, and `activation` the default."""
    options.allow("position_embedding_type", "absolute", None)
    width, number = options.size("hidden_size"), options.size("num_hidden_layers")
    places = options.size("max_position_embeddings")
    # Rows up to that of the padding token stand for no position.
    context = places if padding is None else places - padding - 1
    if context < 1:
        why = f"not above {places - context}"
        raise options.refused("max_position_embeddings", places, why)
    tied = options.flag("tie_word_embeddings", True)
    function = options.choose("hidden_act", make.ACTIVATIONS, activation)
    eps = options.number("layer_norm_eps", 1e-12) if eps is None else eps
    entered = width if embedded is None else embedded
    vocabulary, head = options.size("vocab_size"), None
    if make.has(tensors, names.head["dense"]):
        head = MaskedTokenHead(
            dense=make.dense(width, entered),
            normalization=make.layer_norm(entered, eps),
            readout=None if tied else jnp.zeros((vocabulary, entered)),
            bias=jnp.zeros(vocabulary),
            activation=head_activation or function,
        )
    feed_forward = make.feed_forward(options, activation=activation)
    layers = make.block(make.attention(options), feed_forward)
    norms = (make.layer_norm(width, eps),) * 2
    segments = options.size("type_vocab_size", 2) if segmented else None
    return TextEncoder(
        jnp.zeros((vocabulary, entered)),
        positions=jnp.zeros((places, entered)),
        segments=None if segments is None else jnp.zeros((segments, entered)),
        lift=None if embedded is None else make.dense(embedded, width),
        control=control.build(layers, number, key=make.any_key()),
        constraint=control.build(lambda key: norms, number, key=make.any_key()),
        discretization=Discretization(LieTrotter()),
        context=context,
        padding=padding,
        input_normalization=make.layer_norm(entered, eps),
        pooler=make.dense(width, width) if make.has(tensors, names.pooler) else None,
        head=head,
    )


def _build_roberta(options: Options, tensors: Set[str], *, names: _Names) -> Model:
    padding = options.size("pad_token_id", 1, least=0)
    # Its head has this activation whatever that of the layers is.
    return _build(options, tensors, names=names, padding=padding, head_activation=gelu)


def _build_distilbert(options: Options, tensors: Set[str], *, names: _Names) -> Model:
    renamed = options.renamed(
        hidden_size="dim",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        intermediate_size="hidden_dim",
        hidden_act="activation",
    )
    return _build(renamed, tensors, names=names, eps=1e-12, segmented=False)


def _build_albert(options: Options, tensors: Set[str], *, names: _Names) -> Model:
    options.allow("num_hidden_groups", 1)
    options.allow("inner_group_num", 1)
    embedded, activation = options.size("embedding_size", 128), "gelu_new"
    arguments: Any = dict(embedded=embedded, activation=activation, control=Tied)
    return _build(options, tensors, names=names, **arguments)


def _table(model: Any, *, names: _Names) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield from weights_of(
        model.inputs,
        "embeddings",
        embedding="word_embeddings.weight",
        positions="position_embeddings.weight",
        segments="token_type_embeddings.weight",
        normalization="LayerNorm",
    )
    yield from linear(model.inputs.lift, "encoder.embedding_hidden_mapping_in")
    yield from weights_of(attention, names.layer, **names.attention)
    yield from weights_of(feed_forward, names.layer, **names.feed_forward)
    for part, name in zip(block(model.constraint), names.norms, strict=True):
        yield from norm(part, f"{names.layer}.{name}")
    yield from linear(model.read_out.pooler, names.pooler)
    if (head := model.read_out.head) is not None:
        tied, readout = head.readout is None, f"{names.decoder}.weight"
        bias = names.bias if tied else f"{names.decoder}.bias"
        yield from weights_of(head, **names.head, bias=bias, readout=readout)


# Dropout.
_HARMLESS = "attention_probs_dropout_prob classifier_dropout hidden_dropout_prob"


def _family(name: str, build: Callable, names: _Names, **arguments: Any) -> Family:
    return Family(
        ft.partial(build, names=names),
        ft.partial(_table, names=names),
        prefix=f"{name}.",
        ignored=r"embeddings\.position_ids",
        copies={
            f"{names.decoder}.weight": "embeddings.word_embeddings.weight",
            f"{names.decoder}.bias": names.bias,
        },
        **arguments,
    )


FAMILIES = {
    "bert": _family(
        "bert",
        _build,
        _BERT,
        # The next-sentence head, and a bias where the decoder has one of its own.
        unread=r"cls\.seq_relationship\.(weight|bias)|cls\.predictions\.bias",
        # The first release described the pooler, which has only one form.
        harmless=f"{_HARMLESS} directionality pooler_fc_size pooler_num_attention_heads "
        "pooler_num_fc_layers pooler_size_per_head pooler_type",
    ),
    "roberta": _family(
        "roberta", _build_roberta, _ROBERTA, unread=r"lm_head\.bias", harmless=_HARMLESS
    ),
    "distilbert": _family(
        "distilbert",
        _build_distilbert,
        _DISTILBERT,
        # The positions are read from the file, whatever they were at first.
        harmless="attention_dropout dropout qa_dropout seq_classif_dropout "
        "sinusoidal_pos_embds tie_weights_",
    ),
    "albert": _family(
        "albert",
        _build_albert,
        _ALBERT,
        # The sentence-order head, and a bias where the decoder has one of its own.
        unread=r"sop_classifier\.classifier\.(weight|bias)|predictions\.bias",
        # The release names experiments, all of which are off.
        harmless=f"{_HARMLESS} classifier_dropout_prob down_scale_factor gap_size "
        "layers_to_keep net_structure_type num_memory_blocks",
    ),
}
