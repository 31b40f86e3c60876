"""CvT (Wu et al., arXiv 2103.15808): pre-norm stages on coarser and coarser grids, with
convolutions before queries, keys and values."""

import functools as ft
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from ...equation import ConvolutionalAttention
from ...errors import InputError
from ...models import ImageStage, Model, StagedModel
from .. import make
from ..family import Family, Placement, block, linear, weights_of, windows
from ..options import Options
from .vit import num_classes


# transformers does not read the option layer_norm_eps.
_EPS = 1e-5
# The side of images of published checkpoints.
_SIDE = 224

# Options with an entry for each stage, and the library's defaults.
_DEFAULTS: dict[str, tuple[Any, ...]] = dict(
    depth=(1, 2, 10),
    embed_dim=(64, 192, 384),
    num_heads=(1, 3, 6),
    mlp_ratio=(4.0, 4.0, 4.0),
    patch_sizes=(7, 3, 3),
    patch_stride=(4, 2, 2),
    patch_padding=(2, 1, 1),
    kernel_qkv=(3, 3, 3),
    padding_q=(1, 1, 1),
    padding_kv=(1, 1, 1),
    stride_q=(1, 1, 1),
    stride_kv=(2, 2, 2),
    qkv_bias=(True, True, True),
    cls_token=(False, False, True),
    qkv_projection_method=("dw_bn", "dw_bn", "dw_bn"),
)


def build(options: Options, tensors: Set[str]) -> Model:
    *earlier, last = _stage_options(options)
    # All strides must divide the side of an image; the smallest such side from _SIDE on.
    stride = 1
    divisor = 1
    for stage in (*earlier, last):
        stride *= stage.size("patch_stride")
        divisor = math.lcm(divisor, stride * stage.size("stride_kv"))
    side = -(-_SIDE // divisor) * divisor
    shape = (side, side, options.size("num_channels", 3))
    models = []
    for stage in earlier:
        stage.allow("cls_token", False)
        models.append(_stage(stage, shape, None))
        shape = (*models[-1].inputs.grid, models[-1].features)
    classes = num_classes(options) if make.has(tensors, "classifier") else None
    return StagedModel((*models, _stage(last, shape, classes)))


def _stage_options(options: Options) -> list[Options]:
    depths = options.get("depth", list(_DEFAULTS["depth"]))
    if not isinstance(depths, list) or not depths:
        raise options.refused("depth", depths, "not a list with a number for each stage")
    lists = {name: options.get(name, list(default)) for name, default in _DEFAULTS.items()}
    for name, values in lists.items():
        if not isinstance(values, list) or len(values) != len(depths):
            reason = f"not a list of {len(depths)} entries, one for each stage, like depth"
            raise options.refused(name, values, reason)
    names = {name: name for name in lists} | dict(
        hidden_size="embed_dim", num_hidden_layers="depth", num_attention_heads="num_heads"
    )
    stages = []
    for i in range(len(depths)):
        values = {f"{name}[{i}]": entries[i] for name, entries in lists.items()}
        spellings = {name: f"{spelling}[{i}]" for name, spelling in names.items()}
        stages.append(Options(values, options.file, spellings=spellings))
    return stages


def _stage(options: Options, shape: tuple[int, int, int], classes: int | None) -> Model:
    width = options.size("embed_dim")
    kernel = options.size("kernel_qkv")
    # All tokens have queries, and kernels are centred on tokens.
    options.allow("qkv_projection_method", "dw_bn")
    options.allow("stride_q", 1)
    if kernel % 2 == 0:
        raise options.refused("kernel_qkv", kernel, "even; use an odd number")
    for name in ("padding_q", "padding_kv"):
        options.allow(name, kernel // 2)
    options.divided("embed_dim", "num_heads")
    attention = ft.partial(
        ConvolutionalAttention,
        width,
        options.size("num_heads"),
        width=kernel,
        stride=options.size("stride_kv"),
        statistics=True,
        bias=options.flag("qkv_bias", True),
        output_bias=True,
    )
    feed_forward = make.feed_forward(options, hidden=options.times("embed_dim", "mlp_ratio"))
    parts = make.pre_norm(options, make.layer_norm(width, _EPS), attention, feed_forward)
    return ImageStage(
        shape,
        width,
        window=options.size("patch_sizes"),
        stride=options.size("patch_stride"),
        padding=options.size("patch_padding", least=0),
        class_token=options.flag("cls_token", False),
        classes=classes,
        area_weights=False,
        embedding_normalization=make.layer_norm(width, _EPS),
        key=make.any_key(),
        **parts,
    )


def table(model: Any) -> Iterator[Placement]:
    for i, stage in enumerate(model.equations):
        name = f"encoder.stages.{i}"
        embedding = f"{name}.embedding.convolution_embeddings"
        inputs = getattr(stage.inputs, "windows", stage.inputs)
        yield from windows(inputs, f"{embedding}.projection", stage.features)
        yield from weights_of(inputs, embedding, embedding_normalization="normalization")
        for token in inputs.prefix:
            yield Placement(token, f"{name}.cls_token", shape=(1, 1, stage.features))
        attention, feed_forward = block(stage.control)
        layer = f"{name}.layers.{{layer}}"
        yield from weights_of(attention, layer, normalization="layernorm_before")
        yield from _attention_table(attention, f"{layer}.attention")
        names = dict(inner="intermediate.dense", outer="output.dense")
        yield from weights_of(feed_forward, layer, **names, normalization="layernorm_after")
    yield from weights_of(model.read_out, normalization="layernorm")
    for classifier in getattr(model.read_out, "classifiers", ()):
        yield from linear(classifier, "classifier")
    yield from weights_of(model.read_out, linear="classifier")


def _attention_table(attention: ConvolutionalAttention, name: str) -> Iterator[Placement]:
    for part in ("query", "key", "value"):
        convolution = getattr(attention, f"{part}_convolution")
        below = f"{name}.attention.convolution_projection_{part}.convolution_projection"
        *sides, features = convolution.weight.shape[1:]
        # [features, 1, rows, columns].
        yield Placement(
            convolution.weight,
            f"{below}.convolution.weight",
            axes=(2, 3, 0, 1),
            shape=(*sides, features, 1),
        )
        below = f"{below}.normalization"
        yield from weights_of(convolution, below, gain="weight", bias="bias")
        names = dict(mean="running_mean", variance="running_var")
        yield from weights_of(convolution.statistics, below, **names)
        # The library divides scores by the root of all features, not of a head's.
        scale = attention.heads**-0.5 if part == "query" else 1.0
        below = f"{name}.attention.projection_{part}"
        yield from linear(getattr(attention, part), below, scale=scale)
    yield from linear(attention.output, f"{name}.output.dense")


def _layers(layers: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    # transformers reads the DropPath rate of stage i from entry i of a list over its layers.
    for stage, num_layers in enumerate(layers):
        if num_layers <= stage:
            raise InputError(
                f"CvT: stage {stage} has {num_layers} layers, but transformers needs at least "
                f"{stage + 1}; keep more."
            )
    return dict(depth=list(layers))


FAMILIES = {
    "cvt": Family(
        build,
        table,
        prefix="cvt.",
        # The number of batches behind the statistics.
        ignored=r".*\.num_batches_tracked",
        # Dropout.
        harmless="attention_drop_rate drop_path_rate drop_rate layer_norm_eps",
        layers=_layers,
    )
}
