"""DistilBERT (Sanh et al., arXiv 1910.01108): BERT without segments and pooler."""

from collections.abc import Iterator, Set

import jax.numpy as jnp

from ...models import TextEncoder
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import (
    POST_NORM,
    block_maker,
    has,
    layer_norm,
    layers,
    masked_token_head,
    post_norms,
)
from ..placement import Placement, linear, norm


_EPS = 1e-12


def build(fields: Fields, names: Set[str]) -> TextEncoder:
    width, number = fields.get("dim"), fields.get("n_layers")
    vocabulary, places = fields.get("vocab_size"), fields.get("max_position_embeddings")
    activation = fields.choose("activation", ACTIVATIONS, "gelu")

    heads, hidden = fields.get("n_heads"), fields.get("hidden_dim")
    block = block_maker(width, heads, hidden, activation)
    return TextEncoder(
        jnp.zeros((vocabulary, width)),
        positions=jnp.zeros((places, width)),
        control=layers(block, number),
        constraint=post_norms(width, _EPS, number),
        discretization=POST_NORM,
        context=places,
        input_normalization=layer_norm(width, _EPS),
        head=masked_token_head(fields, width, width, _EPS, activation)
        if has(names, "vocab_transform")
        else None,
    )


def table(model: TextEncoder) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    after_attention, after_feed_forward = model.constraint.blocks  # pyright: ignore
    yield Placement(model.embedding, "embeddings.word_embeddings.weight")
    yield Placement(model.positions, "embeddings.position_embeddings.weight")
    yield from norm(model.input_normalization, "embeddings.LayerNorm")
    layer = "transformer.layer.{layer}"
    yield from linear(attention.query, f"{layer}.attention.q_lin")
    yield from linear(attention.key, f"{layer}.attention.k_lin")
    yield from linear(attention.value, f"{layer}.attention.v_lin")
    yield from linear(attention.output, f"{layer}.attention.out_lin")
    yield from norm(after_attention, f"{layer}.sa_layer_norm")
    yield from linear(feed_forward.inner, f"{layer}.ffn.lin1")
    yield from linear(feed_forward.outer, f"{layer}.ffn.lin2")
    yield from norm(after_feed_forward, f"{layer}.output_layer_norm")
    if model.head is not None:
        yield from linear(model.head.dense, "vocab_transform")
        yield from norm(model.head.normalization, "vocab_layer_norm")
        yield Placement(model.head.bias, "vocab_projector.bias")
        if model.head.readout is not None:
            yield Placement(model.head.readout, "vocab_projector.weight")


FAMILIES = {
    "distilbert": Family(
        build,
        table,
        prefix="distilbert.",
        ignored=r"embeddings\.position_ids|vocab_projector\.weight",
    )
}
