"""ALBERT (Lan et al., arXiv 1909.11942): one post-norm block at every depth, an autonomous
equation."""

from collections.abc import Iterator, Set

from ...equation import Tied
from ...models import TextEncoder
from ..family import Family
from ..options import Options
from ..placement import Placement, linear
from ..post_norm import HARMLESS, PostNormNames, post_norm_encoder, post_norm_table


_NAMES = PostNormNames(
    layer="encoder.albert_layer_groups.0.albert_layers.0",
    attention=dict(
        query="attention.query",
        key="attention.key",
        value="attention.value",
        output="attention.dense",
    ),
    feed_forward=dict(inner="ffn", outer="ffn_output"),
    norms=("attention.LayerNorm", "full_layer_layer_norm"),
    head=dict(
        dense="predictions.dense",
        normalization="predictions.LayerNorm",
        bias="predictions.bias",
        decoder="predictions.decoder",
    ),
    pooler="pooler",
)


def build(options: Options, tensors: Set[str]) -> TextEncoder:
    options.allow("num_hidden_groups", 1)
    options.allow("inner_group_num", 1)
    return post_norm_encoder(
        options,
        tensors,
        _NAMES,
        eps=options.number("layer_norm_eps", 1e-12),
        segments=options.size("type_vocab_size", 2),
        embedded=options.size("embedding_size", 128),
        activation="gelu_new",
        control=Tied,
    )


def table(model: TextEncoder) -> Iterator[Placement]:
    yield from post_norm_table(model, _NAMES)
    yield from linear(model.lift, "encoder.embedding_hidden_mapping_in")


FAMILIES = {
    "albert": Family(
        build,
        table,
        prefix="albert.",
        ignored=r"embeddings\.position_ids",
        # The sentence-order head, and a bias where the decoder has one of its own.
        unread=r"sop_classifier\.classifier\.(weight|bias)|predictions\.bias",
        copies=_NAMES.copies,
        # The release names experiments, all of which are off.
        harmless=f"{HARMLESS} classifier_dropout_prob down_scale_factor gap_size "
        "layers_to_keep net_structure_type num_memory_blocks",
    )
}
