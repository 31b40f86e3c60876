"""DINOv2 (Oquab et al., arXiv 2304.07193): a pre-norm encoder of patches whose operators have
a step size for each feature, the LayerScale of Touvron et al., arXiv 2103.17239."""

import functools as ft
from collections.abc import Iterator, Set

import jax.numpy as jnp

from ...equation import AbstractOperator, GatedFeedForward, Scaled
from ...errors import InputError
from ...models import ImageEncoder, NoHead, PrefixAndMeanHead
from .. import images, make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, fused, linear, linears, norm


def build(options: Options, tensors: Set[str]) -> ImageEncoder:
    width = options.size("hidden_size")
    embedded = images.embedded_patches(options, patch=14, prefix=1)
    _check_square(options, embedded["image_shape"][:2])
    return ImageEncoder(
        **embedded,
        **make.pre_norm(
            options,
            make.layer_norm(width, options.number("layer_norm_eps", 1e-6)),
            _scaled(images.make_image_attention(options), width),
            _scaled(_feed_forward(options, width), width),
        ),
        head=PrefixAndMeanHead(make.dense(2 * width, images.classes(options)))
        if make.has(tensors, "classifier")
        else NoHead(),
    )


def _check_square(options: Options, size: tuple[int, int]) -> None:
    if size[0] != size[1]:
        raise InputError(
            f"{options.file}: image_size = {list(size)} is not supported: the positions of "
            "DINOv2 lie on a square. Load it with a square size, then take "
            "model.on(Mesh(tokens=…))."
        )


def _scaled(make: make.MakeOperator, width: int) -> make.MakeOperator:
    def make_scaled(**arguments) -> AbstractOperator:
        return Scaled(make(**arguments), jnp.ones(width))

    return make_scaled


def _feed_forward(options: Options, width: int) -> make.MakeOperator:
    hidden = int(width * options.number("mlp_ratio", 4))
    if not options.allow("use_swiglu_ffn", False, True):
        return make.feed_forward(options, hidden=hidden)
    # Two thirds, rounded up to a multiple of 8, keep the number of weights.
    hidden = -(-int(hidden * 2 / 3) // 8) * 8
    return ft.partial(GatedFeedForward, width, hidden, bias=True)


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
        halves = (feed_forward.gate, feed_forward.inner)
        yield from fused(halves, f"{layer}.mlp.weights_in")
        yield from linear(feed_forward.outer, f"{layer}.mlp.weights_out")
    else:
        yield from linears(feed_forward, f"{layer}.mlp", inner="fc1", outer="fc2")
    yield Placement(scaled_feed_forward.rate, f"{layer}.layer_scale2.lambda1")
    yield from norm(model.output_normalization, "layernorm")
    yield from linear(getattr(model.head, "classifier", None), "classifier")


FAMILIES = {
    "dinov2": Family(
        build,
        table,
        prefix="dinov2.",
        # The token of masked patches, used in pre-training only.
        unread=r"embeddings\.mask_token",
        renamed=images.ATTENTION_MODULES,
        # Training, the features of a backbone, and an activation that SwiGLU has not.
        harmless=f"{images.HARMLESS} apply_layernorm drop_path_rate hidden_act "
        "layerscale_value out_features out_indices reshape_hidden_states stage_names "
        "use_mask_token",
    )
}
