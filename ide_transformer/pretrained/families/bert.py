"""Post-norm encoders: BERT (Devlin et al., arXiv 1810.04805), RoBERTa (Liu et al., arXiv
1907.11692), DistilBERT (Sanh et al., arXiv 1910.01108), ALBERT (Lan et al., arXiv 1909.11942).
They are Lie–Trotter with projected Euler sub-steps. ALBERT has one block for all depths."""

import functools as ft
from collections.abc import Callable, Iterator, Set
from typing import Any

import jax.numpy as jnp

from ...equation import PiecewiseConstant, Tied, gelu
from ...models import MaskedTokenHead, Model, States, TextInputs
from .. import make
from ..family import Family, Placement, block, layers_by, linear, weights_of
from ..options import Options


# Maps names of BERT's head and of BERT's relatives to names in the table.
_RENAMED = {
    "cls.predictions": "predictions",
    "cls.predictions.transform": "predictions",
    "pooler.dense": "pooler",
    # RoBERTa.
    "lm_head": "predictions",
    "lm_head.layer_norm": "predictions.LayerNorm",
    # DistilBERT.
    "transformer.layer": "encoder.layer",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
    "vocab_transform": "predictions.dense",
    "vocab_layer_norm": "predictions.LayerNorm",
    "vocab_projector": "predictions.decoder",
    # ALBERT.
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.dense": "attention.output.dense",
    "attention.LayerNorm": "attention.output.LayerNorm",
    "ffn": "intermediate.dense",
    "ffn_output": "output.dense",
    "full_layer_layer_norm": "output.LayerNorm",
}
_TIED_LAYER = "encoder.albert_layer_groups.0.albert_layers.0"


def _build(
    options: Options,
    tensors: Set[str],
    *,
    eps: float | None = None,
    segmented: bool = True,
    embedded: int | None = None,
    padding: int | None = None,
    activation: str = "gelu",
    head_activation: Callable | None = None,
    control: type[PiecewiseConstant] | type[Tied] = PiecewiseConstant,
) -> Model:
    """A post-norm encoder. `embedded`: the width of the embedding; `None` for `hidden_size`."""
    options.allow("position_embedding_type", "absolute", None)
    width = options.size("hidden_size")
    num_layers = options.size("num_hidden_layers")
    places = options.size("max_position_embeddings")
    # The rows up to the padding token's row are not positions.
    context = places if padding is None else places - padding - 1
    if context < 1:
        reason = f"not above {places - context}"
        raise options.refused("max_position_embeddings", places, reason)
    tied = options.flag("tie_word_embeddings", True)
    function = options.choose("hidden_act", make.ACTIVATIONS, activation)
    eps = options.number("layer_norm_eps", 1e-12) if eps is None else eps
    embedding_width = width if embedded is None else embedded
    vocabulary = options.size("vocab_size")
    head = None
    if make.has(tensors, "predictions.dense"):
        head = MaskedTokenHead(
            dense=make.dense(width, embedding_width),
            normalization=make.layer_norm(embedding_width, eps),
            readout=None if tied else jnp.zeros((vocabulary, embedding_width)),
            bias=jnp.zeros(vocabulary),
            activation=head_activation or function,
        )
    feed_forward = make.feed_forward(options, activation=activation)
    layers = make.block(make.attention(options), feed_forward)
    norms = (make.layer_norm(width, eps),) * 2
    segments = options.size("type_vocab_size", 2) if segmented else None
    inputs = TextInputs(
        jnp.zeros((vocabulary, embedding_width)),
        context,
        positions=jnp.zeros((places, embedding_width)),
        segments=None if segments is None else jnp.zeros((segments, embedding_width)),
        lift=None if embedded is None else make.dense(embedded, width),
        normalization=make.layer_norm(embedding_width, eps),
        padding=padding,
    )
    pooler = make.dense(width, width) if make.has(tensors, "pooler") else None
    return Model(
        inputs,
        control.build(layers, num_layers, key=make.any_key()),
        control.build(lambda key: norms, num_layers, key=make.any_key()),
        States(pooler=pooler, head=head),
    )


def _build_roberta(options: Options, tensors: Set[str]) -> Model:
    padding = options.size("pad_token_id", 1, least=0)
    # RoBERTa's head always has this activation.
    return _build(options, tensors, padding=padding, head_activation=gelu)


def _build_distilbert(options: Options, tensors: Set[str]) -> Model:
    renamed = options.renamed(
        hidden_size="dim",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        intermediate_size="hidden_dim",
        hidden_act="activation",
    )
    return _build(renamed, tensors, eps=1e-12, segmented=False)


def _build_albert(options: Options, tensors: Set[str]) -> Model:
    options.allow("num_hidden_groups", 1)
    options.allow("inner_group_num", 1)
    embedded = options.size("embedding_size", 128)
    return _build(options, tensors, embedded=embedded, activation="gelu_new", control=Tied)


def _table(model: Any, *, bias: str = "predictions.bias") -> Iterator[Placement]:
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
    layer = _TIED_LAYER if isinstance(model.control, Tied) else "encoder.layer.{layer}"
    names = {x: f"attention.self.{x}" for x in ("query", "key", "value")}
    yield from weights_of(attention, layer, **names, output="attention.output.dense")
    yield from weights_of(feed_forward, layer, inner="intermediate.dense", outer="output.dense")
    names = dict(gain="LayerNorm.weight", bias="LayerNorm.bias")
    for part, name in zip(block(model.constraint), ("attention.output", "output"), strict=True):
        yield from weights_of(part, f"{layer}.{name}", **names)
    yield from linear(model.read_out.pooler, "pooler")
    if (head := model.read_out.head) is not None:
        names = dict(dense="dense", normalization="LayerNorm", readout="decoder.weight")
        yield from weights_of(head, "predictions", **names)
        # An untied decoder has its own bias.
        yield Placement(head.bias, bias if head.readout is None else "predictions.decoder.bias")


_DROPOUT = "attention_probs_dropout_prob classifier_dropout hidden_dropout_prob"


def _family(
    name: str,
    build: Callable[..., Model],
    harmless: str,
    table: Callable[..., Iterator[Placement]] = _table,
    **fields: Any,
) -> Family:
    return Family(
        build,
        table,
        prefix=f"{name}.",
        ignored=r"embeddings\.position_ids",
        # Sentence heads, and a bias that an untied decoder does not use.
        unread=r"(cls\.seq_relationship|sop_classifier\.classifier)\.(weight|bias)"
        r"|predictions\.bias",
        copies={
            "predictions.decoder.weight": "embeddings.word_embeddings.weight",
            "predictions.decoder.bias": "predictions.bias",
        },
        renamed=_RENAMED,
        harmless=harmless,
        **fields,
    )


FAMILIES = {
    "bert": _family(
        "bert",
        _build,
        # The first release has options of the pooler.
        f"{_DROPOUT} directionality pooler_fc_size pooler_num_attention_heads "
        "pooler_num_fc_layers pooler_size_per_head pooler_type",
    ),
    "roberta": _family("roberta", _build_roberta, _DROPOUT),
    "distilbert": _family(
        "distilbert",
        _build_distilbert,
        # Sinusoidal positions are stored too.
        "attention_dropout dropout qa_dropout seq_classif_dropout sinusoidal_pos_embds "
        "tie_weights_",
        ft.partial(_table, bias="predictions.decoder.bias"),
        layers=layers_by("n_layers"),
    ),
    "albert": _family(
        "albert",
        _build_albert,
        # The release has options of experiments, which are off.
        f"{_DROPOUT} classifier_dropout_prob down_scale_factor gap_size layers_to_keep "
        "net_structure_type num_memory_blocks",
    ),
}
