"""ViT (Dosovitskiy et al., arXiv 2010.11929) and DeiT (Touvron et al., arXiv 2012.12877):
pre-norm encoders of patches; DeiT has a second token, for distillation."""

import functools as ft
from collections.abc import Iterator, Set

import jax
import jax.numpy as jnp

from ..equation import Attention, FeedForward, Free
from ..models import AbstractImageHead, ImageEncoder, NoHead, PrefixHead
from .family import ACTIVATIONS, Family
from .fields import Fields
from .images import ATTENTION_MODULES, classes, embeddings, image_shape
from .parts import PRE_NORM, dense, has, layer_norm, layers
from .placement import Placement, linear, norm


def _build(
    fields: Fields,
    names: Set[str],
    *,
    prefix: tuple[str, ...],
    heads: tuple[tuple[str, ...], ...],
) -> ImageEncoder:
    fields.allow("pooler_act", "tanh")
    width, eps = fields.get("hidden_size"), fields.get("layer_norm_eps", 1e-12)
    hidden = fields.get("intermediate_size")
    activation = fields.choose("hidden_act", ACTIVATIONS, "gelu")
    shape, patch = image_shape(fields, patch=16)
    tokens = len(prefix) + (shape[0] // patch) * (shape[1] // patch)

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
        feed_forward = FeedForward(
            width,
            hidden,
            activation=activation,
            normalization=layer_norm(width, eps),
            key=keys[1],
        )
        return attention, feed_forward

    pooled = fields.get("pooler_output_size", None) or width
    return ImageEncoder(
        shape,
        patch,
        embedding=dense(patch * patch * shape[2], width),
        prefix=tuple(jnp.zeros(width) for _ in prefix),
        positions=jnp.zeros((tokens, width)),
        control=layers(block, fields.get("num_hidden_layers")),
        constraint=Free(),
        scheme=PRE_NORM,
        output_normalization=layer_norm(width, eps),
        pooler=dense(width, pooled) if has(names, "pooler") else None,
        head=_head(fields, names, width, heads),
    )


def _head(
    fields: Fields, names: Set[str], width: int, heads: tuple[tuple[str, ...], ...]
) -> AbstractImageHead:
    """The classifiers of the first of `heads` that the checkpoint has, or none."""
    for classifiers in heads:
        if any(has(names, name) for name in classifiers):
            return PrefixHead(tuple(dense(width, classes(fields)) for _ in classifiers))
    return NoHead()


_VIT = dict(prefix=("cls_token",), heads=(("classifier",),))
_DEIT = dict(
    prefix=("cls_token", "distillation_token"),
    heads=(("classifier",), ("cls_classifier", "distillation_classifier")),
)


def _table(
    model: ImageEncoder, *, prefix: tuple[str, ...], heads: tuple[tuple[str, ...], ...]
) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield from embeddings(model, *prefix)
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
    if isinstance(model.head, PrefixHead):
        number = len(model.head.classifiers)
        names = next(names for names in heads if len(names) == number)
        for classifier, name in zip(model.head.classifiers, names, strict=True):
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
        ft.partial(_build, **_VIT),
        ft.partial(_table, **_VIT),
        prefix="vit.",
        ignored=_IGNORED,
        renamed=_MODULES,
    ),
    "deit": Family(
        ft.partial(_build, **_DEIT),
        ft.partial(_table, **_DEIT),
        prefix="deit.",
        ignored=_IGNORED,
        renamed=_MODULES,
    ),
}
