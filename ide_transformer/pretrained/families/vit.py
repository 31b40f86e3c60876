"""ViT (Dosovitskiy et al., arXiv 2010.11929) and DeiT (Touvron et al., arXiv 2012.12877):
pre-norm encoders of patches; DeiT has a second token, for distillation."""

import functools as ft
from collections.abc import Iterator, Set
from typing import NamedTuple

from ...equation import Linear
from ...models import AbstractImageHead, ImageEncoder, NoHead, PrefixHead
from .. import images, make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, linear, linears, norm


class _Names(NamedTuple):
    """Names in which the families differ.

    - `prefix`: the tokens before the patches.
    - `heads`: for each kind of head its classifiers, one for each of the first of these
      tokens.
    """

    prefix: tuple[str, ...]
    heads: tuple[tuple[str, ...], ...]


_VIT = _Names(("cls_token",), (("classifier",),))
_DEIT = _Names(
    ("cls_token", "distillation_token"),
    (("classifier",), ("cls_classifier", "distillation_classifier")),
)


def _build(options: Options, tensors: Set[str], *, names: _Names) -> ImageEncoder:
    width = options.size("hidden_size")
    return ImageEncoder(
        **images.embedded_patches(options, patch=16, prefix=len(names.prefix)),
        **make.pre_norm(
            options,
            make.layer_norm(width, options.number("layer_norm_eps", 1e-12)),
            images.make_image_attention(options),
            make.feed_forward(options),
        ),
        pooler=_pooler(options, width) if make.has(tensors, "pooler") else None,
        head=_head(options, tensors, width, names),
    )


def _pooler(options: Options, width: int) -> Linear:
    options.allow("pooler_act", "tanh")
    return make.dense(width, options.size("pooler_output_size", None) or width)


def _head(options: Options, tensors: Set[str], width: int, names: _Names) -> AbstractImageHead:
    """The classifiers that the checkpoint has, or none."""
    for classifiers in names.heads:
        if any(make.has(tensors, name) for name in classifiers):
            return PrefixHead(
                tuple(make.dense(width, images.classes(options)) for _ in classifiers)
            )
    return NoHead()


def _table(model: ImageEncoder, *, names: _Names) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield from images.embedding_tensors(model, *names.prefix)
    layer = "encoder.layer.{layer}"
    yield from norm(attention.normalization, f"{layer}.layernorm_before")
    yield from images.attention_tensors(attention, layer)
    yield from norm(feed_forward.normalization, f"{layer}.layernorm_after")
    yield from linears(feed_forward, layer, inner="intermediate.dense", outer="output.dense")
    yield from norm(model.output_normalization, "layernorm")
    yield from linear(model.pooler, "pooler.dense")
    maps = getattr(model.head, "classifiers", ())
    for classifiers in names.heads:
        if len(classifiers) == len(maps):
            for classifier, name in zip(maps, classifiers, strict=True):
                yield from linear(classifier, name)


_MODULES = (
    *images.ATTENTION_MODULES,
    (r"^layers\b", "encoder.layer"),
    (r"\bmlp\.fc1\b", "intermediate.dense"),
    (r"\bmlp\.fc2\b", "output.dense"),
)


def _family(prefix: str, names: _Names) -> Family:
    return Family(
        ft.partial(_build, names=names),
        ft.partial(_table, names=names),
        prefix=prefix,
        # Used in pre-training only: the token of masked patches, the decoder of their pixels.
        unread=r"embeddings\.mask_token|decoder\..*",
        renamed=_MODULES,
        # Without a pooler, these do not matter either.
        harmless=f"{images.HARMLESS} encoder_stride pooler_act pooler_output_size",
    )


FAMILIES = {"vit": _family("vit.", _VIT), "deit": _family("deit.", _DEIT)}
