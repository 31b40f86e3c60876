"""DINOv2 (Oquab et al., arXiv 2304.07193): a pre-norm encoder of patches whose operators have
a step size for each feature, the LayerScale of Touvron et al., arXiv 2103.17239."""

import functools as ft
from collections.abc import Iterator, Set
from typing import Any

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ...equation import (
    AbstractConstraint,
    AbstractOperator,
    Attention,
    FeedForward,
    GatedFeedForward,
    Scaled,
)
from ...errors import InputError
from ...models import ImageEncoder, NoHead, PrefixAndMeanHead
from .. import images
from ..builders import MakeOperator, dense, has, layer_norm, pre_norm
from ..family import ACTIVATIONS, Family
from ..options import Options
from ..placement import Placement, block, linear, linears, norm
from ..rows import part_rows


def build(options: Options, tensors: Set[str]) -> ImageEncoder:
    width = options.get("hidden_size")
    normalization = layer_norm(width, options.get("layer_norm_eps", 1e-6))
    embedded = images.embedded_patches(options, patch=14, prefix=1)
    _check_square(options, embedded["image_shape"][:2])
    attention = ft.partial(
        Attention, **images.attention_options(options), normalization=normalization
    )
    feed_forward = _feed_forward(options, width, normalization)
    return ImageEncoder(
        **embedded,
        **pre_norm(
            options.get("num_hidden_layers"),
            _scaled(attention, width),
            _scaled(feed_forward, width),
        ),
        output_normalization=normalization,
        head=PrefixAndMeanHead(dense(2 * width, images.classes(options)))
        if has(tensors, "classifier")
        else NoHead(),
    )


def _check_square(options: Options, size: tuple[int, int]) -> None:
    if size[0] != size[1]:
        raise InputError(
            f"{options.file}: image_size = {list(size)} is not supported: the positions of "
            "DINOv2 lie on a square. Load it with a square size, then take model.resized."
        )


def _scaled(make: MakeOperator, width: int) -> MakeOperator:
    def make_scaled(*, key: PRNGKeyArray) -> AbstractOperator:
        return Scaled(make(key=key), jnp.ones(width))

    return make_scaled


def _feed_forward(
    options: Options, width: int, normalization: AbstractConstraint
) -> MakeOperator:
    hidden = int(width * options.get("mlp_ratio", 4))
    shared: dict[str, Any] = dict(features=width, normalization=normalization)
    if not options.allow("use_swiglu_ffn", False, True):
        activation = options.choose("hidden_act", ACTIVATIONS, "gelu")
        return ft.partial(FeedForward, hidden=hidden, activation=activation, **shared)
    # Two thirds, rounded up to a multiple of 8, keep the number of weights.
    hidden = -(-int(hidden * 2 / 3) // 8) * 8
    return ft.partial(GatedFeedForward, hidden=hidden, bias=True, **shared)


def table(model: ImageEncoder) -> Iterator[Placement]:
    scaled_attention, scaled_feed_forward = block(model.control)
    attention, feed_forward = scaled_attention.operator, scaled_feed_forward.operator
    yield from images.embedding_tensors(model, "cls_token")
    layer = "encoder.layer.{layer}"
    yield from norm(attention.normalization, f"{layer}.norm1")
    yield from images.attention_tensors(attention, layer)
    yield Placement(scaled_attention.rate, f"{layer}.layer_scale1.lambda1")
    yield from norm(feed_forward.normalization, f"{layer}.norm2")
    if isinstance(feed_forward, GatedFeedForward):
        hidden = feed_forward.inner.weight.shape[-1]
        for index, part in enumerate((feed_forward.gate, feed_forward.inner)):
            rows = part_rows(index, hidden)
            yield from linear(part, f"{layer}.mlp.weights_in", rows=rows)
        yield from linear(feed_forward.outer, f"{layer}.mlp.weights_out")
    else:
        yield from linears(feed_forward, f"{layer}.mlp", inner="fc1", outer="fc2")
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
        renamed=images.ATTENTION_MODULES,
    )
}
