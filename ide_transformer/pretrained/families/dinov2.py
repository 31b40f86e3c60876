"""DINOv2 (Oquab et al., arXiv 2304.07193): a pre-norm encoder of patches whose operators have
a step size for each feature, the LayerScale of Touvron et al., arXiv 2103.17239."""

from collections.abc import Iterator, Set

import jax
import jax.numpy as jnp

from ...equation import Attention, FeedForward, Free, GatedFeedForward, Scaled
from ...errors import InputError
from ...models import ImageEncoder, NoHead, PrefixAndMeanHead
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..images import ATTENTION_MODULES, classes, embeddings, image_shape
from ..parts import PRE_NORM, dense, has, layer_norm, layers, part_of
from ..placement import Placement, linear, norm


def build(fields: Fields, names: Set[str]) -> ImageEncoder:
    width, eps = fields.get("hidden_size"), fields.get("layer_norm_eps", 1e-6)
    shape, patch = image_shape(fields, patch=14)
    if shape[0] != shape[1]:
        raise InputError(
            f"{fields.file}: image_size = {list(shape[:2])} is not supported: the positions of "
            "DINOv2 lie on a square. Load it with a square size, then take model.resized."
        )
    tokens = 1 + (shape[0] // patch) * (shape[1] // patch)

    def block(key):
        keys = jax.random.split(key)
        attention = Attention(
            width,
            fields.get("num_attention_heads"),
            head_features=fields.get("head_dim", None),
            normalization=layer_norm(width, eps),
            bias=fields.get("qkv_bias", True),
            output_bias=True,
            key=keys[0],
        )
        feed_forward = _feed_forward(fields, width, eps, keys[1])
        return Scaled(attention, jnp.ones(width)), Scaled(feed_forward, jnp.ones(width))

    return ImageEncoder(
        shape,
        patch,
        embedding=dense(patch * patch * shape[2], width),
        prefix=(jnp.zeros(width),),
        positions=jnp.zeros((tokens, width)),
        control=layers(block, fields.get("num_hidden_layers")),
        constraint=Free(),
        discretization=PRE_NORM,
        output_normalization=layer_norm(width, eps),
        head=PrefixAndMeanHead(dense(2 * width, classes(fields)))
        if has(names, "classifier")
        else NoHead(),
    )


def _feed_forward(
    fields: Fields, width: int, eps: float, key: jax.Array
) -> FeedForward | GatedFeedForward:
    hidden, normalization = int(width * fields.get("mlp_ratio", 4)), layer_norm(width, eps)
    if not fields.allow("use_swiglu_ffn", False, True):
        activation = fields.choose("hidden_act", ACTIVATIONS, "gelu")
        return FeedForward(
            width, hidden, activation=activation, normalization=normalization, key=key
        )
    # Two thirds, rounded up to a multiple of 8, keep the number of weights.
    hidden = -(-int(hidden * 2 / 3) // 8) * 8
    return GatedFeedForward(width, hidden, normalization=normalization, bias=True, key=key)


def table(model: ImageEncoder) -> Iterator[Placement]:
    scaled_attention, scaled_feed_forward = model.control.blocks  # pyright: ignore
    attention, feed_forward = scaled_attention.operator, scaled_feed_forward.operator
    yield from embeddings(model, "cls_token")
    layer = "encoder.layer.{layer}"
    yield from norm(attention.normalization, f"{layer}.norm1")
    yield from linear(attention.query, f"{layer}.attention.attention.query")
    yield from linear(attention.key, f"{layer}.attention.attention.key")
    yield from linear(attention.value, f"{layer}.attention.attention.value")
    yield from linear(attention.output, f"{layer}.attention.output.dense")
    yield Placement(scaled_attention.rate, f"{layer}.layer_scale1.lambda1")
    yield from norm(feed_forward.normalization, f"{layer}.norm2")
    if isinstance(feed_forward, GatedFeedForward):
        hidden = feed_forward.inner.weight.shape[-1]
        name = f"{layer}.mlp.weights_in"
        yield from linear(feed_forward.gate, name, rows=part_of(0, hidden))
        yield from linear(feed_forward.inner, name, rows=part_of(1, hidden))
        yield from linear(feed_forward.outer, f"{layer}.mlp.weights_out")
    else:
        yield from linear(feed_forward.inner, f"{layer}.mlp.fc1")
        yield from linear(feed_forward.outer, f"{layer}.mlp.fc2")
    yield Placement(scaled_feed_forward.rate, f"{layer}.layer_scale2.lambda1")
    yield from norm(model.output_normalization, "layernorm")
    if isinstance(model.head, PrefixAndMeanHead):
        yield from linear(model.head.classifier, "classifier")


FAMILIES = {
    "dinov2": Family(
        build,
        table,
        prefix="dinov2.",
        # The token of masked patches, used in pre-training only.
        ignored=r"embeddings\.mask_token",
        renamed=ATTENTION_MODULES,
    )
}
