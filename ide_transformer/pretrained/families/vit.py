"""Pre-norm encoders of patches: ViT (Dosovitskiy et al., arXiv 2010.11929), DeiT (Touvron et
al., arXiv 2012.12877) with a distillation token, and DINOv2 (Oquab et al., arXiv 2304.07193)
with a step size for each feature (LayerScale: Touvron et al., arXiv 2103.17239)."""

import functools as ft
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import jax.numpy as jnp

from ...equation import GatedFeedForward, Linear, Scaled, parts
from ...models import (
    AbstractClassifier,
    AbstractReadOut,
    ImageInputs,
    Model,
    PrefixAndMeanHead,
    PrefixHead,
    States,
)
from .. import make
from ..family import Family, Placement, block, fused, linear, weights_of, windows
from ..options import Options


# Learned tokens, and the classifiers that read one or two of them.
_PREFIX = ("cls_token", "distillation_token")
_HEADS = (("classifier",), ("cls_classifier", "distillation_classifier"))


def _build(options: Options, tensors: Set[str], *, prefix: int) -> Model:
    width = options.size("hidden_size")
    pooler = None
    if make.has(tensors, "pooler"):
        options.allow("pooler_act", "tanh")
        pooler = make.dense(width, options.size("pooler_output_size", None) or width)
    inputs = _embedded_patches(options, patch=16, prefix=prefix)
    parts = make.pre_norm(
        options,
        make.layer_norm(width, options.number("layer_norm_eps", 1e-12)),
        _attention(options),
        make.feed_forward(options),
    )
    normalization = parts.pop("output_normalization")
    read_out: AbstractReadOut = States(normalization, pooler)
    for names in _HEADS[:prefix]:
        if any(make.has(tensors, name) for name in names):
            maps = tuple(make.dense(width, num_classes(options)) for _ in names)
            read_out = PrefixHead(maps, normalization)
    return Model(inputs, **parts, read_out=read_out)


def _vit_options(model: Any) -> dict[str, Any] | None:
    inputs = model.inputs
    read_out = model.read_out
    if not (isinstance(inputs, ImageInputs) and isinstance(read_out, AbstractClassifier)):
        return None
    rows, columns, channels = inputs.image_shape
    return dict(
        architectures=["ViTForImageClassification"],
        image_size=[rows, columns],
        patch_size=inputs.stride,
        num_channels=channels,
        num_labels=parts(read_out, Linear)[0].weight.shape[1],
        qkv_bias=make.first_of(model, "query.bias", None) is not None,
        **make.options_of(model),
    )


def _build_dinov2(options: Options, tensors: Set[str]) -> Model:
    width = options.size("hidden_size")
    hidden = options.times("hidden_size", "mlp_ratio", 4)
    inputs = _embedded_patches(options, patch=14, prefix=1)
    rows, columns, _ = inputs.image_shape
    if rows != columns:
        reason = "not supported: the positions of DINOv2 lie on a square"
        raise options.refused("image_size", [rows, columns], reason)
    if options.allow("use_swiglu_ffn", False, True):
        # Two thirds, rounded up to a multiple of 8.
        hidden = -(-int(hidden * 2 / 3) // 8) * 8
        feed_forward = ft.partial(GatedFeedForward, width, hidden, bias=True)
    else:
        feed_forward = make.feed_forward(options, hidden=hidden)
    parts = make.pre_norm(
        options,
        make.layer_norm(width, options.number("layer_norm_eps", 1e-6)),
        _scale(_attention(options), width),
        _scale(feed_forward, width),
    )
    normalization = parts.pop("output_normalization")
    read_out: AbstractReadOut = States(normalization)
    if make.has(tensors, "classifier"):
        classifier = make.dense(2 * width, num_classes(options))
        read_out = PrefixAndMeanHead(classifier, normalization)
    return Model(inputs, **parts, read_out=read_out)


def _dinov2_layers(layers: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    num_layers = layers[0]
    # transformers rejects options that name features of missing layers.
    last_layer: dict[str, Any] = dict(
        stage_names=["stem", *(f"stage{i + 1}" for i in range(num_layers))],
        out_features=[f"stage{num_layers}"],
        out_indices=[num_layers],
    )
    changed = {name: value for name, value in last_layer.items() if name in options}
    return dict(num_hidden_layers=num_layers) | changed


def _scale(make_operator: make.MakeOperator, width: int) -> make.MakeOperator:
    return lambda **arguments: Scaled(make_operator(**arguments), jnp.ones(width))


def _embedded_patches(options: Options, *, patch: int, prefix: int) -> ImageInputs:
    rows, columns = _pair(options, "image_size", 224)
    side, other_side = _pair(options, "patch_size", patch)
    if side != other_side:
        raise options.refused("patch_size", [side, other_side], "not supported; use squares")
    fitting = [max(side, x - x % side) for x in (rows, columns)]
    if fitting != [rows, columns]:
        reason = f"not a multiple of patch_size = {side}; set the size that is used, {fitting}"
        raise options.refused("image_size", [rows, columns], reason)
    width = options.size("hidden_size")
    channels = options.size("num_channels", 3)
    tokens = prefix + (rows // side) * (columns // side)
    return ImageInputs(
        (rows, columns, channels),
        make.dense(side * side * channels, width),
        side,
        side,
        prefix=tuple(jnp.zeros(width) for _ in range(prefix)),
        positions=jnp.zeros((tokens, width)),
        fixed_size=True,
    )


def _pair(options: Options, name: str, default: int) -> tuple[int, int]:
    value = options.get(name, default)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(x) is int and x > 0 for x in sides):
        raise options.refused(name, value, "neither a number of pixels nor [rows, columns]")
    return sides[0], sides[1]


def _attention(options: Options) -> make.MakeOperator:
    return make.attention(
        options,
        head_features=options.size("head_dim", None),
        bias=options.flag("qkv_bias", True),
        output_bias=True,
    )


def num_classes(options: Options) -> int:
    """The number of classes: `num_labels`, or the number of `id2label`, or two."""
    names = options.get("id2label", None)
    if not isinstance(names, dict | None):
        raise options.refused("id2label", names, "not an object of names")
    return options.size("num_labels", 2 if names is None else len(names), least=0)


def _table(model: Any) -> Iterator[Placement]:
    inputs = model.inputs
    width = model.features
    yield from windows(inputs, "embeddings.patch_embeddings.projection", width)
    for token, name in zip(inputs.prefix, _PREFIX, strict=False):
        yield Placement(token, f"embeddings.{name}", shape=(1, 1, width))
    shape = (1, *inputs.positions.shape)
    yield Placement(inputs.positions, "embeddings.position_embeddings", shape=shape)
    layer = "encoder.layer.{layer}"
    parts = []
    for i, part in enumerate(block(model.control), 1):
        if isinstance(part, Scaled):
            yield from weights_of(part, layer, rate=f"layer_scale{i}.lambda1")
            part = part.operator
        parts.append(part)
    attention, feed_forward = parts
    names = {x: f"attention.attention.{x}" for x in ("query", "key", "value")}
    names |= dict(output="attention.output.dense", normalization="layernorm_before")
    yield from weights_of(attention, layer, **names)
    yield from weights_of(feed_forward, layer, normalization="layernorm_after")
    if isinstance(feed_forward, GatedFeedForward):
        halves = (feed_forward.gate, feed_forward.inner)
        yield from fused(halves, f"{layer}.mlp.weights_in")
        yield from linear(feed_forward.outer, f"{layer}.mlp.weights_out")
    else:
        names = dict(inner="intermediate.dense", outer="output.dense")
        yield from weights_of(feed_forward, layer, **names)
    names = dict(normalization="layernorm", pooler="pooler.dense", linear="classifier")
    yield from weights_of(model.read_out, **names)
    if classifiers := getattr(model.read_out, "classifiers", ()):
        for classifier, name in zip(classifiers, _HEADS[len(classifiers) - 1], strict=True):
            yield from linear(classifier, name)


def _family(name: str, build: Callable[..., Model], harmless: str, **fields: Any) -> Family:
    return Family(
        build,
        _table,
        prefix=f"{name}.",
        # For pre-training: the token of masked patches, the decoder of pixels.
        unread=r"embeddings\.mask_token|decoder\..*",
        # Names of newer versions and of DINOv2.
        renamed={
            "layers": "encoder.layer",
            "attention.q_proj": "attention.attention.query",
            "attention.k_proj": "attention.attention.key",
            "attention.v_proj": "attention.attention.value",
            "attention.o_proj": "attention.output.dense",
            "mlp.fc1": "intermediate.dense",
            "mlp.fc2": "output.dense",
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
        },
        harmless=f"attention_probs_dropout_prob hidden_dropout_prob {harmless}",
        **fields,
    )


# Options of a pooler that may be missing, and of pre-training.
_UNUSED = "encoder_stride pooler_act pooler_output_size"
FAMILIES = {
    "vit": _family(
        "vit", ft.partial(_build, prefix=1), _UNUSED, options_of=_vit_options, head="classifier"
    ),
    "deit": _family("deit", ft.partial(_build, prefix=2), _UNUSED),
    "dinov2": _family(
        "dinov2",
        _build_dinov2,
        # Training, features of a backbone, and an activation that SwiGLU does not use.
        "apply_layernorm drop_path_rate hidden_act layerscale_value out_features out_indices "
        "reshape_hidden_states stage_names use_mask_token",
        layers=_dinov2_layers,
    ),
}
