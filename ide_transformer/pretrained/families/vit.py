"""ViT (Dosovitskiy et al., arXiv 2010.11929), DeiT (Touvron et al., arXiv 2012.12877) and
DINOv2 (Oquab et al., arXiv 2304.07193): pre-norm encoders of patches. DeiT has a second token,
for distillation; operators of DINOv2 have a step size for each feature, the LayerScale of
Touvron et al., arXiv 2103.17239."""

import functools as ft
from collections.abc import Iterator, Set
from typing import Any

import jax.numpy as jnp

from ...equation import Attention, GatedFeedForward, Scaled
from ...errors import InputError
from ...models import (
    AbstractReadOut,
    ImageEncoder,
    Model,
    PrefixAndMeanHead,
    PrefixHead,
    States,
)
from .. import make
from ..family import Family, Placement, block, fused, linear, weights_of
from ..options import Options


# Names of the tokens before the patches; and of the classifiers, one for each of the first of
# these tokens, for each kind of head.
_Prefix = tuple[str, ...]
_Heads = tuple[tuple[str, ...], ...]


def _build(options: Options, tensors: Set[str], *, prefix: _Prefix, heads: _Heads) -> Model:
    width, pooler = options.size("hidden_size"), None
    if make.has(tensors, "pooler"):
        options.allow("pooler_act", "tanh")
        pooler = make.dense(width, options.size("pooler_output_size", None) or width)
    embedded = _embedded_patches(options, patch=16, prefix=len(prefix))
    equation = make.pre_norm(
        options,
        make.layer_norm(width, options.number("layer_norm_eps", 1e-12)),
        _attention(options),
        make.feed_forward(options),
    )
    normalization = equation.pop("output_normalization")
    read_out: AbstractReadOut = States(normalization, pooler)
    for classifiers in heads:
        if any(make.has(tensors, name) for name in classifiers):
            number = number_of_classes(options)
            maps = tuple(make.dense(width, number) for _ in classifiers)
            read_out = PrefixHead(maps, normalization)
            break
    return ImageEncoder(**embedded, **equation, read_out=read_out)


def _build_dinov2(options: Options, tensors: Set[str]) -> Model:
    width, ratio = options.size("hidden_size"), options.number("mlp_ratio", 4)
    embedded = _embedded_patches(options, patch=14, prefix=1)
    rows, columns, _ = embedded["image_shape"]
    if rows != columns:
        raise InputError(
            f"{options.file}: image_size = [{rows}, {columns}] is not supported: the positions "
            "of DINOv2 lie on a square. Load it with a square size, then take "
            "model.on(Mesh(tokens=…))."
        )
    hidden = int(width * ratio)
    if options.allow("use_swiglu_ffn", False, True):
        # Two thirds, rounded up to a multiple of 8, keep the number of weights.
        hidden = -(-int(hidden * 2 / 3) // 8) * 8
        feed_forward = ft.partial(GatedFeedForward, width, hidden, bias=True)
    else:
        feed_forward = make.feed_forward(options, hidden=hidden)
    equation = make.pre_norm(
        options,
        make.layer_norm(width, options.number("layer_norm_eps", 1e-6)),
        _scaled(_attention(options), width),
        _scaled(feed_forward, width),
    )
    normalization = equation.pop("output_normalization")
    read_out: AbstractReadOut = States(normalization)
    if make.has(tensors, "classifier"):
        classifier = make.dense(2 * width, number_of_classes(options))
        read_out = PrefixAndMeanHead(classifier, normalization)
    return ImageEncoder(**embedded, **equation, read_out=read_out)


def _scaled(make: make.MakeOperator, width: int) -> make.MakeOperator:
    return lambda **arguments: Scaled(make(**arguments), jnp.ones(width))


def _embedded_patches(options: Options, *, patch: int, prefix: int) -> dict[str, Any]:
    """The arguments of `ImageEncoder` that embed an image, by squares that divide it. `patch`
    is their default side, `prefix` the number of tokens before them."""
    rows, columns = _pair(options, "image_size", 224)
    side, other = _pair(options, "patch_size", patch)
    if side != other:
        raise InputError(
            f"{options.file}: patch_size = [{side}, {other}] is not supported: patches have "
            "to be squares."
        )
    fitting = [max(side, x - x % side) for x in (rows, columns)]
    if fitting != [rows, columns]:
        raise InputError(
            f"{options.file}: image_size = [{rows}, {columns}] is no multiple of patch_size = "
            f"{side}. The pixels that are left over would be ignored: write the size without "
            f"them, [{fitting[0]}, {fitting[1]}], and give such images."
        )
    width, channels = options.size("hidden_size"), options.size("num_channels", 3)
    tokens = prefix + (rows // side) * (columns // side)
    return dict(
        image_shape=(rows, columns, channels),
        patch=side,
        embedding=make.dense(side * side * channels, width),
        prefix=tuple(jnp.zeros(width) for _ in range(prefix)),
        positions=jnp.zeros((tokens, width)),
    )


def _pair(options: Options, name: str, default: int) -> tuple[int, int]:
    value = options.get(name, default)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(x) is int and 0 < x < 2**16 for x in sides):
        raise options.refused(name, value, "neither a number of pixels nor [rows, columns]")
    return sides[0], sides[1]


def _attention(options: Options) -> make.MakeOperator:
    return make.attention(
        options,
        head_features=options.size("head_dim", None),
        bias=options.flag("qkv_bias", True),
        output_bias=True,
    )


def number_of_classes(options: Options) -> int:
    """The number of classes: as such, by their names, else two."""
    names = options.get("id2label", None)
    if not isinstance(names, dict | None):
        raise options.refused("id2label", names, "no object of names")
    return options.size("num_labels", 2 if names is None else len(names), least=0)


_LAYER = "encoder.layer.{layer}"


def _table(model: Any, *, prefix: _Prefix, heads: _Heads) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield from _outer_table(model, *prefix)
    yield from _attention_table(attention, normalization="layernorm_before")
    maps = dict(inner="intermediate.dense", outer="output.dense")
    yield from weights_of(feed_forward, _LAYER, **maps, normalization="layernorm_after")
    yield from linear(getattr(model.read_out, "pooler", None), "pooler.dense")
    classifiers = getattr(model.read_out, "classifiers", ())
    for own in heads:
        if len(own) == len(classifiers):
            for classifier, name in zip(classifiers, own, strict=True):
                yield from linear(classifier, name)


def _dinov2_table(model: Any) -> Iterator[Placement]:
    scaled_attention, scaled_feed_forward = block(model.control)
    feed_forward = scaled_feed_forward.operator
    yield from _outer_table(model, "cls_token")
    yield from _attention_table(scaled_attention.operator, normalization="norm1")
    yield from weights_of(scaled_attention, _LAYER, rate="layer_scale1.lambda1")
    if isinstance(feed_forward, GatedFeedForward):
        halves = (feed_forward.gate, feed_forward.inner)
        yield from fused(halves, f"{_LAYER}.mlp.weights_in")
        yield from linear(feed_forward.outer, f"{_LAYER}.mlp.weights_out")
    else:
        yield from weights_of(feed_forward, _LAYER, inner="mlp.fc1", outer="mlp.fc2")
    yield from weights_of(feed_forward, _LAYER, normalization="norm2")
    yield from weights_of(scaled_feed_forward, _LAYER, rate="layer_scale2.lambda1")
    yield from linear(getattr(model.read_out, "classifier", None), "classifier")


def _outer_table(model: Any, *prefix: str) -> Iterator[Placement]:
    """The patches, the tokens before them, which have these names, the positions, and the
    normalisation of the outputs."""
    inputs, name, width = model.inputs, "embeddings.patch_embeddings.projection", model.features
    # A convolution, [features, channels, rows, columns], whose stride is its size.
    shape = (inputs.window, inputs.window, inputs.image_shape[2], width)
    yield from linear(inputs.embedding, name, axes=(2, 3, 1, 0), shape=shape)
    for token, prefix_name in zip(inputs.prefix, prefix, strict=True):
        yield Placement(token, f"embeddings.{prefix_name}", shape=(1, 1, width))
    shape = (1, *inputs.positions.shape)
    yield Placement(inputs.positions, "embeddings.position_embeddings", shape=shape)
    yield from weights_of(model.read_out, normalization="layernorm")


def _attention_table(attention: Attention, *, normalization: str) -> Iterator[Placement]:
    names = dict(query="attention.query", key="attention.key", value="attention.value")
    yield from weights_of(attention, f"{_LAYER}.attention", **names, output="output.dense")
    yield from weights_of(attention, _LAYER, normalization=normalization)


# Modules of the library's newer versions and their names in checkpoints.
_ATTENTION_MODULES = (
    (r"\battention\.q_proj\b", "attention.attention.query"),
    (r"\battention\.k_proj\b", "attention.attention.key"),
    (r"\battention\.v_proj\b", "attention.attention.value"),
    (r"\battention\.o_proj\b", "attention.output.dense"),
)
_MODULES = (
    *_ATTENTION_MODULES,
    (r"^layers\b", "encoder.layer"),
    (r"\bmlp\.fc1\b", "intermediate.dense"),
    (r"\bmlp\.fc2\b", "output.dense"),
)

# Dropout.
_HARMLESS = "attention_probs_dropout_prob hidden_dropout_prob"


def _family(name: str, prefix: _Prefix, *heads: tuple[str, ...]) -> Family:
    return Family(
        ft.partial(_build, prefix=prefix, heads=heads),
        ft.partial(_table, prefix=prefix, heads=heads),
        prefix=f"{name}.",
        # Used in pre-training only: the token of masked patches, the decoder of their pixels.
        unread=r"embeddings\.mask_token|decoder\..*",
        renamed=_MODULES,
        # Without a pooler, these do not matter either.
        harmless=f"{_HARMLESS} encoder_stride pooler_act pooler_output_size",
    )


FAMILIES = {
    "vit": _family("vit", ("cls_token",), ("classifier",)),
    "deit": _family(
        "deit",
        ("cls_token", "distillation_token"),
        ("classifier",),
        ("cls_classifier", "distillation_classifier"),
    ),
    "dinov2": Family(
        _build_dinov2,
        _dinov2_table,
        prefix="dinov2.",
        # The token of masked patches, used in pre-training only.
        unread=r"embeddings\.mask_token",
        renamed=_ATTENTION_MODULES,
        # Training, the features of a backbone, and an activation that SwiGLU has not.
        harmless=f"{_HARMLESS} apply_layernorm drop_path_rate hidden_act layerscale_value "
        "out_features out_indices reshape_hidden_states stage_names use_mask_token",
    ),
}
