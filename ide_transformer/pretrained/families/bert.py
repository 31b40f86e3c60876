"""BERT (Devlin et al., arXiv 1810.04805) and RoBERTa (Liu et al., arXiv 1907.11692):
post-norm encoders, which are Lie–Trotter with projection after each sub-step."""

import functools as ft
from collections.abc import Callable, Iterator, Set

import jax.numpy as jnp

from ...models import MaskedTokenHead, TextEncoder
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import (
    POST_NORM,
    block_maker,
    dense,
    has,
    layer_norm,
    layers,
    masked_token_head,
    post_norms,
)
from ..placement import Placement, linear, norm


def _build(fields: Fields, names: Set[str], *, head: str, first_position: int) -> TextEncoder:
    fields.allow("position_embedding_type", "absolute", None)
    fields.allow("is_decoder", False)
    fields.allow("add_cross_attention", False)
    width, eps = fields.get("hidden_size"), fields.get("layer_norm_eps", 1e-12)
    number, places = fields.get("num_hidden_layers"), fields.get("max_position_embeddings")
    vocabulary = fields.get("vocab_size")
    activation = fields.choose("hidden_act", ACTIVATIONS, "gelu")

    heads, hidden = fields.get("num_attention_heads"), fields.get("intermediate_size")
    block = block_maker(width, heads, hidden, activation)
    return TextEncoder(
        jnp.zeros((vocabulary, width)),
        positions=jnp.zeros((places, width)),
        segments=jnp.zeros((fields.get("type_vocab_size", 2), width)),
        control=layers(block, number),
        constraint=post_norms(width, eps, number),
        discretization=POST_NORM,
        context=places - first_position,
        first_position=first_position,
        input_normalization=layer_norm(width, eps),
        pooler=dense(width, width) if has(names, "pooler") else None,
        head=masked_token_head(fields, width, width, eps, activation)
        if has(names, head)
        else None,
    )


def build_bert(fields: Fields, names: Set[str]) -> TextEncoder:
    return _build(fields, names, head="cls.predictions", first_position=0)


def build_roberta(fields: Fields, names: Set[str]) -> TextEncoder:
    # The rows up to that of the padding token stand for no position.
    first = fields.get("pad_token_id", 1) + 1
    return _build(fields, names, head="lm_head", first_position=first)


def _table(model: TextEncoder, head: Callable) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    after_attention, after_feed_forward = model.constraint.blocks  # pyright: ignore
    yield Placement(model.embedding, "embeddings.word_embeddings.weight")
    yield Placement(model.positions, "embeddings.position_embeddings.weight")
    yield Placement(model.segments, "embeddings.token_type_embeddings.weight")
    yield from norm(model.input_normalization, "embeddings.LayerNorm")
    layer = "encoder.layer.{layer}"
    yield from linear(attention.query, f"{layer}.attention.self.query")
    yield from linear(attention.key, f"{layer}.attention.self.key")
    yield from linear(attention.value, f"{layer}.attention.self.value")
    yield from linear(attention.output, f"{layer}.attention.output.dense")
    yield from norm(after_attention, f"{layer}.attention.output.LayerNorm")
    yield from linear(feed_forward.inner, f"{layer}.intermediate.dense")
    yield from linear(feed_forward.outer, f"{layer}.output.dense")
    yield from norm(after_feed_forward, f"{layer}.output.LayerNorm")
    if model.pooler is not None:
        yield from linear(model.pooler, "pooler.dense")
    if model.head is not None:
        yield from head(model.head)


def _bert_head(head: MaskedTokenHead) -> Iterator[Placement]:
    yield from linear(head.dense, "cls.predictions.transform.dense")
    yield from norm(head.normalization, "cls.predictions.transform.LayerNorm")
    yield Placement(head.bias, "cls.predictions.bias")
    if head.readout is not None:
        yield Placement(head.readout, "cls.predictions.decoder.weight")


def _roberta_head(head: MaskedTokenHead) -> Iterator[Placement]:
    yield from linear(head.dense, "lm_head.dense")
    yield from norm(head.normalization, "lm_head.layer_norm")
    yield Placement(head.bias, "lm_head.bias")
    if head.readout is not None:
        yield Placement(head.readout, "lm_head.decoder.weight")


FAMILIES = {
    "bert": Family(
        build_bert,
        ft.partial(_table, head=_bert_head),
        prefix="bert.",
        # The next-sentence head is not part of the encoder.
        ignored=r"embeddings\.position_ids|cls\.predictions\.decoder\.(weight|bias)"
        r"|cls\.seq_relationship\.(weight|bias)",
    ),
    "roberta": Family(
        build_roberta,
        ft.partial(_table, head=_roberta_head),
        prefix="roberta.",
        ignored=r"embeddings\.position_ids|lm_head\.decoder\.(weight|bias)",
    ),
}
