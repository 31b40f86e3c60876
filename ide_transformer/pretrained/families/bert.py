"""BERT (Devlin et al., arXiv 1810.04805) and RoBERTa (Liu et al., arXiv 1907.11692):
post-norm encoders."""

import functools as ft
from collections.abc import Set
from typing import Any

from ...equation import gelu
from ...models import TextEncoder
from ..family import Family
from ..options import Options
from ..post_norm import HARMLESS, PostNormNames, post_norm_encoder, post_norm_table


_BERT = PostNormNames(
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
        bias="cls.predictions.bias",
        decoder="cls.predictions.decoder",
    ),
)
_ROBERTA = _BERT._replace(
    head=dict(
        dense="lm_head.dense",
        normalization="lm_head.layer_norm",
        bias="lm_head.bias",
        decoder="lm_head.decoder",
    )
)


def _build(
    options: Options, tensors: Set[str], names: PostNormNames, **arguments: Any
) -> TextEncoder:
    return post_norm_encoder(
        options,
        tensors,
        names,
        eps=options.number("layer_norm_eps", 1e-12),
        segments=options.size("type_vocab_size", 2),
        **arguments,
    )


def build_roberta(options: Options, tensors: Set[str]) -> TextEncoder:
    padding = options.size("pad_token_id", 1, least=0)
    # Its head has this activation whatever that of the layers is.
    return _build(options, tensors, _ROBERTA, padding=padding, head_activation=gelu)


FAMILIES = {
    "bert": Family(
        ft.partial(_build, names=_BERT),
        ft.partial(post_norm_table, names=_BERT),
        prefix="bert.",
        ignored=r"embeddings\.position_ids",
        # The next-sentence head, and a bias where the decoder has one of its own.
        unread=r"cls\.seq_relationship\.(weight|bias)|cls\.predictions\.bias",
        copies=_BERT.copies,
        # The first release described the pooler, which has only one form.
        harmless=f"{HARMLESS} directionality pooler_fc_size pooler_num_attention_heads "
        "pooler_num_fc_layers pooler_size_per_head pooler_type",
    ),
    "roberta": Family(
        build_roberta,
        ft.partial(post_norm_table, names=_ROBERTA),
        prefix="roberta.",
        ignored=r"embeddings\.position_ids",
        unread=r"lm_head\.bias",
        copies=_ROBERTA.copies,
        harmless=HARMLESS,
    ),
}
