"""The encoder of T5 (Raffel et al., arXiv 1910.10683): pre-norm with RMSNorm, scores with a
bias by distance, which all layers share, and without the division by sqrt(d)."""

from collections.abc import Iterator, Set

import jax
import jax.numpy as jnp

from ...equation import Attention, FeedForward, Free, GatedFeedForward, RelativeBias
from ...models import TextEncoder
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import PRE_NORM, layers, rms_norm
from ..placement import Placement, linear, norm


def build(fields: Fields, names: Set[str]) -> TextEncoder:
    width, heads = fields.get("d_model"), fields.get("num_heads")
    eps, hidden = fields.get("layer_norm_epsilon", 1e-6), fields.get("d_ff")
    buckets = fields.get("relative_attention_num_buckets", 32)
    furthest = fields.get("relative_attention_max_distance", 128)
    gated, activation = fields.choose(
        "feed_forward_proj",
        {
            **{name: (False, function) for name, function in ACTIVATIONS.items()},
            **{f"gated-{name}": (True, function) for name, function in ACTIVATIONS.items()},
            # Written so by the release, meant as its approximation.
            "gated-gelu": (True, ACTIVATIONS["gelu_new"]),
        },
        "relu",
    )
    kind = GatedFeedForward if gated else FeedForward

    def block(key):
        keys = jax.random.split(key)
        attention = Attention(
            width,
            heads,
            head_features=fields.get("d_kv", 64),
            positions=RelativeBias(jnp.zeros((buckets, heads)), furthest),
            normalization=rms_norm(width, eps),
            bias=False,
            key=keys[0],
        )
        feed_forward = kind(
            width,
            hidden,
            activation=activation,
            normalization=rms_norm(width, eps),
            bias=False,
            key=keys[1],
        )
        return attention, feed_forward

    return TextEncoder(
        jnp.zeros((fields.get("vocab_size"), width)),
        control=layers(block, fields.get("num_layers")),
        constraint=Free(),
        discretization=PRE_NORM,
        context=fields.get("n_positions", 512),
        output_normalization=rms_norm(width, eps),
    )


def table(model: TextEncoder) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield Placement(model.embedding, "shared.weight")
    head_features = attention.query.weight.shape[-1] // attention.heads
    layer = "encoder.block.{layer}.layer.0"
    query = f"{layer}.SelfAttention.q"
    # Scores here are divided by sqrt(d), those of T5 are not.
    yield from linear(attention.query, query, scale=head_features**0.5)
    yield from linear(attention.key, f"{layer}.SelfAttention.k")
    yield from linear(attention.value, f"{layer}.SelfAttention.v")
    yield from linear(attention.output, f"{layer}.SelfAttention.o")
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Placement(attention.positions.table, first, repeated=True)
    yield from norm(attention.normalization, f"{layer}.layer_norm")
    layer = "encoder.block.{layer}.layer.1"
    if isinstance(feed_forward, GatedFeedForward):
        yield from linear(feed_forward.gate, f"{layer}.DenseReluDense.wi_0")
        yield from linear(feed_forward.inner, f"{layer}.DenseReluDense.wi_1")
    else:
        yield from linear(feed_forward.inner, f"{layer}.DenseReluDense.wi")
    yield from linear(feed_forward.outer, f"{layer}.DenseReluDense.wo")
    yield from norm(feed_forward.normalization, f"{layer}.layer_norm")
    yield from norm(model.output_normalization, "encoder.final_layer_norm")


FAMILIES = {
    "t5": Family(
        build,
        table,
        # The decoder is not part of the encoder.
        ignored=r"decoder\..*|lm_head\.weight|encoder\.embed_tokens\.weight",
    )
}
