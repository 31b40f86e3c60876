"""ALBERT (Lan et al., arXiv 1909.11942): one post-norm block at every depth, an autonomous
equation."""

from collections.abc import Iterator, Set

import jax.numpy as jnp

from ...models import TextEncoder
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import (
    POST_NORM,
    block_maker,
    dense,
    has,
    layer_norm,
    masked_token_head,
    post_norms,
    tied,
)
from ..placement import Placement, linear, norm


def build(fields: Fields, names: Set[str]) -> TextEncoder:
    fields.allow("position_embedding_type", "absolute", None)
    fields.allow("num_hidden_groups", 1)
    fields.allow("inner_group_num", 1)
    width, embedded = fields.get("hidden_size"), fields.get("embedding_size", 128)
    eps, number = fields.get("layer_norm_eps", 1e-12), fields.get("num_hidden_layers")
    vocabulary, places = fields.get("vocab_size"), fields.get("max_position_embeddings")
    activation = fields.choose("hidden_act", ACTIVATIONS, "gelu_new")

    heads, hidden = fields.get("num_attention_heads"), fields.get("intermediate_size")
    block = block_maker(width, heads, hidden, activation)
    return TextEncoder(
        jnp.zeros((vocabulary, embedded)),
        positions=jnp.zeros((places, embedded)),
        segments=jnp.zeros((fields.get("type_vocab_size", 2), embedded)),
        lift=dense(embedded, width),
        control=tied(block, number),
        constraint=post_norms(width, eps, number, build=tied),
        discretization=POST_NORM,
        context=places,
        input_normalization=layer_norm(embedded, eps),
        pooler=dense(width, width) if has(names, "pooler") else None,
        head=masked_token_head(fields, width, embedded, eps, activation)
        if has(names, "predictions")
        else None,
    )


def table(model: TextEncoder) -> Iterator[Placement]:
    attention, feed_forward = model.control.block  # pyright: ignore
    after_attention, after_feed_forward = model.constraint.block  # pyright: ignore
    assert model.lift is not None
    yield Placement(model.embedding, "embeddings.word_embeddings.weight")
    yield Placement(model.positions, "embeddings.position_embeddings.weight")
    yield Placement(model.segments, "embeddings.token_type_embeddings.weight")
    yield from norm(model.input_normalization, "embeddings.LayerNorm")
    yield from linear(model.lift, "encoder.embedding_hidden_mapping_in")
    layer = "encoder.albert_layer_groups.0.albert_layers.0"
    yield from linear(attention.query, f"{layer}.attention.query")
    yield from linear(attention.key, f"{layer}.attention.key")
    yield from linear(attention.value, f"{layer}.attention.value")
    yield from linear(attention.output, f"{layer}.attention.dense")
    yield from norm(after_attention, f"{layer}.attention.LayerNorm")
    yield from linear(feed_forward.inner, f"{layer}.ffn")
    yield from linear(feed_forward.outer, f"{layer}.ffn_output")
    yield from norm(after_feed_forward, f"{layer}.full_layer_layer_norm")
    if model.pooler is not None:
        yield from linear(model.pooler, "pooler")
    if model.head is not None:
        yield from linear(model.head.dense, "predictions.dense")
        yield from norm(model.head.normalization, "predictions.LayerNorm")
        yield Placement(model.head.bias, "predictions.bias")
        if model.head.readout is not None:
            yield Placement(model.head.readout, "predictions.decoder.weight")


FAMILIES = {
    "albert": Family(
        build,
        table,
        prefix="albert.",
        # The sentence-order head is not part of the encoder.
        ignored=r"embeddings\.position_ids|predictions\.decoder\.(weight|bias)"
        r"|sop_classifier\.classifier\.(weight|bias)",
    )
}
