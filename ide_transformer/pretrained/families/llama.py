"""Llama (Touvron et al., arXiv 2302.13971) and its relatives: pre-norm with RMSNorm, rotary
positions, grouped queries and a gated feed-forward. Mistral adds a window, Qwen2 biases of
queries, keys and values, Qwen3 normalised queries and keys, Gemma gains of 1 + g and a scaled
embedding."""

import functools as ft
from collections.abc import Callable, Iterator, Set
from typing import Any

from ...equation import GatedFeedForward
from ...errors import InputError
from ...models import LanguageModel
from .. import make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, linears, norm


AttentionOptions = Callable[[Options], dict[str, Any]]


def _llama(options: Options) -> dict[str, Any]:
    bias = options.get("attention_bias", False)
    return dict(bias=bias, output_bias=bias)


def _mistral(options: Options) -> dict[str, Any]:
    return dict(bias=False, window=options.get("sliding_window", None))


def _qwen2(options: Options) -> dict[str, Any]:
    return dict(bias=True, output_bias=False, window=_window_of_all_layers(options))


def _qwen3(options: Options) -> dict[str, Any]:
    head_norm = make.rms_norm(_head_features(options), options.get("rms_norm_eps", 1e-6))
    return dict(
        **_llama(options),
        window=_window_of_all_layers(options),
        query_normalization=head_norm,
        key_normalization=head_norm,
    )


def _gemma(options: Options) -> dict[str, Any]:
    options.allow("attn_logit_softcapping", None)
    options.allow("final_logit_softcapping", None)
    return _llama(options)


def _window_of_all_layers(options: Options) -> int | None:
    """The window of Qwen, which its layers have from a number on."""
    window = options.get("sliding_window", None)
    if not options.get("use_sliding_window", False) or window is None:
        return None
    if options.get("max_window_layers", 0) > 0:
        raise InputError(
            f"{options.file}: max_window_layers = {options.get('max_window_layers')} gives a "
            "window to some layers only, which is not supported; 0 gives it to all."
        )
    return window


def _head_features(options: Options) -> int:
    head = options.get("head_dim", None)
    return head or options.get("hidden_size") // options.get("num_attention_heads")


def build(
    options: Options,
    tensors: Set[str],
    *,
    attention_options: AttentionOptions,
    scaled_embedding: bool = False,
) -> LanguageModel:
    width = options.get("hidden_size")
    activation = "hidden_activation" if options.get("hidden_activation", None) else "hidden_act"
    attention = make.attention(
        options,
        key_value_heads=options.get("num_key_value_heads", None),
        head_features=_head_features(options),
        causal=True,
        positions=make.rotary(options, _head_features(options)),
        **attention_options(options),
    )
    feed_forward = make.feed_forward(
        options.renamed(hidden_act=activation),
        GatedFeedForward,
        activation="silu",
        bias=options.get("mlp_bias", False),
    )
    normalization = make.rms_norm(width, options.get("rms_norm_eps", 1e-6))
    return make.language_model(
        options,
        context=2048,
        tied=scaled_embedding,
        **make.pre_norm(options, normalization, attention, feed_forward),
        learned_positions=False,
        embedding_scale=width**0.5 if scaled_embedding else 1.0,
    )


def table(model: LanguageModel, *, shift: float = 0.0) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "embed_tokens.weight")
    layer = "layers.{layer}"
    names = dict(query="q_proj", key="k_proj", value="v_proj", output="o_proj")
    yield from linears(attention, f"{layer}.self_attn", **names)
    yield from norm(attention.query_normalization, f"{layer}.self_attn.q_norm")
    yield from norm(attention.key_normalization, f"{layer}.self_attn.k_norm")
    names = dict(gate="gate_proj", inner="up_proj", outer="down_proj")
    yield from linears(feed_forward, f"{layer}.mlp", **names)
    yield from norm(attention.normalization, f"{layer}.input_layernorm", shift=shift)
    after = f"{layer}.post_attention_layernorm"
    yield from norm(feed_forward.normalization, after, shift=shift)
    yield from norm(model.output_normalization, "norm", shift=shift)
    yield Placement(model.readout, "lm_head.weight")


def _family(attention_options: AttentionOptions, *, shift: float = 0.0, **options) -> Family:
    return Family(
        ft.partial(build, attention_options=attention_options, **options),
        ft.partial(table, shift=shift),
        prefix="model.",
        ignored=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq|lm_head\.weight",
    )


FAMILIES = {
    "llama": _family(_llama),
    "mistral": _family(_mistral),
    "qwen2": _family(_qwen2),
    "qwen3": _family(_qwen3),
    "gemma": _family(_gemma, shift=1.0, scaled_embedding=True),
}
