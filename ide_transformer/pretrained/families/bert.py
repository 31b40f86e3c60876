"""BERT (Devlin et al., arXiv 1810.04805) and RoBERTa (Liu et al., arXiv 1907.11692):
post-norm encoders."""

import functools as ft
from collections.abc import Set

from ...models import TextEncoder
from ..family import Family
from ..options import Options
from ..post_norm import PostNormNames, post_norm_encoder, post_norm_table


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
        readout="cls.predictions.decoder.weight",
    ),
)
_ROBERTA = _BERT._replace(
    head=dict(
        dense="lm_head.dense",
        normalization="lm_head.layer_norm",
        bias="lm_head.bias",
        readout="lm_head.decoder.weight",
    )
)


def _build(
    options: Options, tensors: Set[str], names: PostNormNames, first_position: int = 0
) -> TextEncoder:
    options.allow("is_decoder", False)
    options.allow("add_cross_attention", False)
    segments = options.get("type_vocab_size", 2)
    return post_norm_encoder(
        options, tensors, names, segments=segments, first_position=first_position
    )


def build_roberta(options: Options, tensors: Set[str]) -> TextEncoder:
    # The rows up to that of the padding token stand for no position.
    return _build(options, tensors, _ROBERTA, options.get("pad_token_id", 1) + 1)


FAMILIES = {
    "bert": Family(
        ft.partial(_build, names=_BERT),
        ft.partial(post_norm_table, names=_BERT),
        prefix="bert.",
        # The next-sentence head is not part of the encoder.
        ignored=r"embeddings\.position_ids|cls\.predictions\.decoder\.(weight|bias)"
        r"|cls\.seq_relationship\.(weight|bias)",
    ),
    "roberta": Family(
        build_roberta,
        ft.partial(post_norm_table, names=_ROBERTA),
        prefix="roberta.",
        ignored=r"embeddings\.position_ids|lm_head\.decoder\.(weight|bias)",
    ),
}
