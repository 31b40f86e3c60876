"""The encoder of T5 (Raffel et al., arXiv 1910.10683): pre-norm with RMSNorm; scores have a
bias by distance, which all layers share, and are not divided by sqrt(d)."""

import functools as ft
from collections.abc import Iterator, Set

import jax.numpy as jnp

from ...equation import Attention, FeedForward, GatedFeedForward, RelativeBias
from ...models import TextEncoder
from ..builders import pre_norm, rms_norm
from ..family import ACTIVATIONS, Family
from ..options import Options
from ..placement import Placement, block, linear, linears, norm


_FEED_FORWARDS = {
    **{name: (FeedForward, function) for name, function in ACTIVATIONS.items()},
    **{f"gated-{name}": (GatedFeedForward, f) for name, f in ACTIVATIONS.items()},
    # Written so by the release, meant as its approximation.
    "gated-gelu": (GatedFeedForward, ACTIVATIONS["gelu_new"]),
}


def build(options: Options, tensors: Set[str]) -> TextEncoder:
    width, heads = options.get("d_model"), options.get("num_heads")
    buckets = options.get("relative_attention_num_buckets", 32)
    furthest = options.get("relative_attention_max_distance", 128)
    kind, activation = options.choose("feed_forward_proj", _FEED_FORWARDS, "relu")
    normalization = rms_norm(width, options.get("layer_norm_epsilon", 1e-6))
    attention = ft.partial(
        Attention,
        *(width, heads),
        head_features=options.get("d_kv", 64),
        positions=RelativeBias(jnp.zeros((buckets, heads)), furthest),
        normalization=normalization,
        bias=False,
    )
    feed_forward = ft.partial(
        kind,
        *(width, options.get("d_ff")),
        activation=activation,
        normalization=normalization,
        bias=False,
    )
    return TextEncoder(
        jnp.zeros((options.get("vocab_size"), width)),
        **pre_norm(options.get("num_layers"), attention, feed_forward),
        context=options.get("n_positions", 512),
        output_normalization=normalization,
    )


def table(model: TextEncoder) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "shared.weight")
    layer = "encoder.block.{layer}.layer.0"
    head_features = attention.query.weight.shape[-1] // attention.heads
    query = f"{layer}.SelfAttention.q"
    # Scores here are divided by sqrt(d), those of T5 are not.
    yield from linear(attention.query, query, scale=head_features**0.5)
    yield from linears(attention, f"{layer}.SelfAttention", key="k", value="v", output="o")
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Placement(attention.positions.table, first, repeated=True)
    yield from norm(attention.normalization, f"{layer}.layer_norm")
    layer = "encoder.block.{layer}.layer.1"
    gated = isinstance(feed_forward, GatedFeedForward)
    names = dict(gate="wi_0", inner="wi_1") if gated else dict(inner="wi")
    yield from linears(feed_forward, f"{layer}.DenseReluDense", **names, outer="wo")
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
