"""DistilBERT (Sanh et al., arXiv 1910.01108): BERT without segments and pooler."""

import functools as ft
from collections.abc import Set

from ...models import TextEncoder
from ..family import Family
from ..options import Options
from ..post_norm import PostNormNames, post_norm_encoder, post_norm_table


_NAMES = PostNormNames(
    layer="transformer.layer.{layer}",
    attention=dict(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        output="attention.out_lin",
    ),
    feed_forward=dict(inner="ffn.lin1", outer="ffn.lin2"),
    norms=("sa_layer_norm", "output_layer_norm"),
    head=dict(
        dense="vocab_transform",
        normalization="vocab_layer_norm",
        bias="vocab_projector.bias",
        decoder="vocab_projector",
    ),
)


def build(options: Options, tensors: Set[str]) -> TextEncoder:
    renamed = options.renamed(
        hidden_size="dim",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        intermediate_size="hidden_dim",
        hidden_act="activation",
    )
    return post_norm_encoder(renamed, tensors, _NAMES, eps=1e-12)


FAMILIES = {
    "distilbert": Family(
        build,
        ft.partial(post_norm_table, names=_NAMES),
        prefix="distilbert.",
        ignored=r"embeddings\.position_ids",
        copies=_NAMES.copies,
        # The positions are read from the file, whatever they were at first.
        harmless="attention_dropout dropout qa_dropout seq_classif_dropout "
        "sinusoidal_pos_embds tie_weights_",
    )
}
