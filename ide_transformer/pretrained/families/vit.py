"""ViT (Dosovitskiy et al., arXiv 2010.11929) and DeiT (Touvron et al., arXiv 2012.12877):
pre-norm encoders of patches; DeiT has a second token, for distillation."""

import functools as ft
from collections.abc import Iterator, Set
from typing import NamedTuple

import jax.numpy as jnp

from ...equation import Free, Linear
from ...models import AbstractImageHead, ImageEncoder, NoHead, PrefixHead
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..images import ATTENTION_MODULES, classes, embeddings, image_shape
from ..parts import PRE_NORM, block_maker, dense, has, layer_norm, layers
from ..placement import Placement, linear, norm


class _Kind(NamedTuple):
    """What sets the families apart: the names of the tokens before the patches, and, for
    each kind of head, of its classifiers, one for each of the first of these tokens."""

    prefix: tuple[str, ...]
    heads: tuple[tuple[str, ...], ...]


_VIT = _Kind(("cls_token",), (("classifier",),))
_DEIT = _Kind(
    ("cls_token", "distillation_token"),
    (("classifier",), ("cls_classifier", "distillation_classifier")),
)


def _build(fields: Fields, names: Set[str], *, kind: _Kind) -> ImageEncoder:
    width, eps = fields.get("hidden_size"), fields.get("layer_norm_eps", 1e-12)
    hidden = fields.get("intermediate_size")
    activation = fields.choose("hidden_act", ACTIVATIONS, "gelu")
    shape, patch = image_shape(fields, patch=16)
    tokens = len(kind.prefix) + (shape[0] // patch) * (shape[1] // patch)

    block = block_maker(
        width,
        fields.get("num_attention_heads"),
        hidden,
        activation,
        normalization=lambda: layer_norm(width, eps),
        head_features=fields.get("head_dim", None),
        bias=fields.get("qkv_bias", True),
        output_bias=True,
    )
    return ImageEncoder(
        shape,
        patch,
        embedding=dense(patch * patch * shape[2], width),
        prefix=tuple(jnp.zeros(width) for _ in kind.prefix),
        positions=jnp.zeros((tokens, width)),
        control=layers(block, fields.get("num_hidden_layers")),
        constraint=Free(),
        discretization=PRE_NORM,
        output_normalization=layer_norm(width, eps),
        pooler=_pooler(fields, width) if has(names, "pooler") else None,
        head=_head(fields, names, width, kind),
    )


def _pooler(fields: Fields, width: int) -> Linear:
    fields.allow("pooler_act", "tanh")
    return dense(width, fields.get("pooler_output_size", None) or width)


def _head(fields: Fields, names: Set[str], width: int, kind: _Kind) -> AbstractImageHead:
    """The classifiers that the checkpoint has, or none."""
    for classifiers in kind.heads:
        if any(has(names, name) for name in classifiers):
            return PrefixHead(tuple(dense(width, classes(fields)) for _ in classifiers))
    return NoHead()


def _table(model: ImageEncoder, *, kind: _Kind) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield from embeddings(model, *kind.prefix)
    layer = "encoder.layer.{layer}"
    yield from norm(attention.normalization, f"{layer}.layernorm_before")
    yield from linear(attention.query, f"{layer}.attention.attention.query")
    yield from linear(attention.key, f"{layer}.attention.attention.key")
    yield from linear(attention.value, f"{layer}.attention.attention.value")
    yield from linear(attention.output, f"{layer}.attention.output.dense")
    yield from norm(feed_forward.normalization, f"{layer}.layernorm_after")
    yield from linear(feed_forward.inner, f"{layer}.intermediate.dense")
    yield from linear(feed_forward.outer, f"{layer}.output.dense")
    yield from norm(model.output_normalization, "layernorm")
    if model.pooler is not None:
        yield from linear(model.pooler, "pooler.dense")
    maps = model.head.classifiers if isinstance(model.head, PrefixHead) else ()
    for classifiers in kind.heads:
        if len(classifiers) == len(maps):
            for classifier, name in zip(maps, classifiers, strict=True):
                yield from linear(classifier, name)


# What only pre-training uses: the token of masked patches, the decoder of their pixels.
_IGNORED = r"embeddings\.mask_token|decoder\..*"

_MODULES = (
    *ATTENTION_MODULES,
    (r"^layers\b", "encoder.layer"),
    (r"\bmlp\.fc1\b", "intermediate.dense"),
    (r"\bmlp\.fc2\b", "output.dense"),
)

FAMILIES = {
    "vit": Family(
        ft.partial(_build, kind=_VIT),
        ft.partial(_table, kind=_VIT),
        prefix="vit.",
        ignored=_IGNORED,
        renamed=_MODULES,
    ),
    "deit": Family(
        ft.partial(_build, kind=_DEIT),
        ft.partial(_table, kind=_DEIT),
        prefix="deit.",
        ignored=_IGNORED,
        renamed=_MODULES,
    ),
}
