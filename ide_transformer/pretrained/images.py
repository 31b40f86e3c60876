"""Parts of the builders and tables of image families."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from ..equation import Attention
from ..errors import InputError
from ..models import ImageEncoder
from . import make
from .options import Options
from .placement import Placement, linears


# Modules of the library's newer versions and their names in checkpoints.
ATTENTION_MODULES = (
    (r"\battention\.q_proj\b", "attention.attention.query"),
    (r"\battention\.k_proj\b", "attention.attention.key"),
    (r"\battention\.v_proj\b", "attention.attention.value"),
    (r"\battention\.o_proj\b", "attention.output.dense"),
)


# Dropout.
HARMLESS = "attention_probs_dropout_prob hidden_dropout_prob"


def embedded_patches(options: Options, *, patch: int, prefix: int) -> dict[str, Any]:
    """The arguments of `ImageEncoder` that embed an image.

    **Arguments:**

    - `patch`: the default side of a patch.
    - `prefix`: the number of tokens before the patches.

    **Raises:** `InputError` for patches that are not squares or do not divide the image.
    """
    (rows, columns), side = _sizes(options, patch)
    width, channels = options.size("hidden_size"), options.size("num_channels", 3)
    tokens = prefix + (rows // side) * (columns // side)
    return dict(
        image_shape=(rows, columns, channels),
        patch=side,
        embedding=make.dense(side * side * channels, width),
        prefix=tuple(jnp.zeros(width) for _ in range(prefix)),
        positions=jnp.zeros((tokens, width)),
    )


def make_image_attention(options: Options) -> make.MakeOperator:
    return make.attention(
        options,
        head_features=options.size("head_dim", None),
        bias=options.flag("qkv_bias", True),
        output_bias=True,
    )


def classes(options: Options) -> int:
    """The number of classes: as such, by their names, else two."""
    names = options.get("id2label", None)
    if not isinstance(names, dict | None):
        raise options.refused("id2label", names, "no object of names")
    return options.size("num_labels", 2 if names is None else len(names), least=0)


def embedding_tensors(model: ImageEncoder, *prefix: str) -> Iterator[Placement]:
    """The patches, the tokens before them and the positions.

    **Arguments:**

    - `prefix`: the names of the tokens before the patches.
    """
    name, width = "embeddings.patch_embeddings.projection", model.positions.shape[1]
    # A convolution, [features, channels, rows, columns], whose stride is its size.
    weight, shape = model.embedding.weight, (model.patch, model.patch, model.image_shape[2])
    yield Placement(weight, f"{name}.weight", axes=(2, 3, 1, 0), shape=(*shape, width))
    yield Placement(model.embedding.bias, f"{name}.bias")
    for token, prefix_name in zip(model.prefix, prefix, strict=True):
        yield Placement(token, f"embeddings.{prefix_name}", shape=(1, 1, width))
    shape = (1, *model.positions.shape)
    yield Placement(model.positions, "embeddings.position_embeddings", shape=shape)


def attention_tensors(attention: Attention, layer: str) -> Iterator[Placement]:
    names = dict(query="attention.query", key="attention.key", value="attention.value")
    yield from linears(attention, f"{layer}.attention", **names, output="output.dense")


def _sizes(options: Options, patch: int) -> tuple[tuple[int, int], int]:
    """The size of the images, (rows, columns), and the side of a patch."""
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
    return (rows, columns), side


def _pair(options: Options, name: str, default: int) -> tuple[int, int]:
    value = options.get(name, default)
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2 or not all(type(x) is int and 0 < x < 2**16 for x in sides):
        raise options.refused(name, value, "neither a number of pixels nor [rows, columns]")
    return sides[0], sides[1]
