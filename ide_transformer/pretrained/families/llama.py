"""Llama (Touvron et al., arXiv 2302.13971) and its kin: pre-norm with RMSNorm, rotary
positions, grouped queries and a gated feed-forward. Mistral adds a window, Qwen2 biases of
queries, keys and values, Qwen3 normalised queries and keys, Gemma gains of 1 + g and a scaled
embedding."""

import functools as ft
from collections.abc import Iterator, Set
from typing import Any

import jax

from ...equation import Attention, Free, GatedFeedForward
from ...errors import InputError
from ...models import LanguageModel
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import KEY, PRE_NORM, layers, rms_norm, rotary
from ..placement import Placement, linear, norm


def _llama(fields: Fields) -> dict[str, Any]:
    bias = fields.get("attention_bias", False)
    return dict(bias=bias, output_bias=bias)


def _mistral(fields: Fields) -> dict[str, Any]:
    return dict(bias=False, window=fields.get("sliding_window", None))


def _qwen2(fields: Fields) -> dict[str, Any]:
    return dict(bias=True, output_bias=False, window=_window_of_all_layers(fields))


def _qwen3(fields: Fields) -> dict[str, Any]:
    bias, eps = fields.get("attention_bias", False), fields.get("rms_norm_eps", 1e-6)
    head = _head_features(fields)
    return dict(
        bias=bias,
        output_bias=bias,
        window=_window_of_all_layers(fields),
        query_normalization=rms_norm(head, eps),
        key_normalization=rms_norm(head, eps),
    )


def _gemma(fields: Fields) -> dict[str, Any]:
    fields.allow("attn_logit_softcapping", None)
    fields.allow("final_logit_softcapping", None)
    return _llama(fields)


def _window_of_all_layers(fields: Fields) -> int | None:
    """The window of Qwen, which its layers have from a number on."""
    window = fields.get("sliding_window", None)
    if not fields.get("use_sliding_window", False) or window is None:
        return None
    if fields.get("max_window_layers", 0) > 0:
        raise InputError(
            f"{fields.file}: max_window_layers = {fields.get('max_window_layers')} gives a "
            "window to some layers only, which is not supported; 0 gives it to all."
        )
    return window


def _head_features(fields: Fields) -> int:
    head = fields.get("head_dim", None)
    return head or fields.get("hidden_size") // fields.get("num_attention_heads")


def build(fields: Fields, names: Set[str], *, attention_options, **options) -> LanguageModel:
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    eps, head = fields.get("rms_norm_eps", 1e-6), _head_features(fields)
    activation = fields.choose(
        "hidden_activation" if fields.get("hidden_activation", None) else "hidden_act",
        ACTIVATIONS,
        "silu",
    )
    special = attention_options(fields)

    def block(key):
        keys = jax.random.split(key)
        attention = Attention(
            width,
            heads,
            key_value_heads=fields.get("num_key_value_heads", None) or heads,
            head_features=head,
            causal=True,
            positions=rotary(fields, head),
            normalization=rms_norm(width, eps),
            key=keys[0],
            **special,
        )
        feed_forward = GatedFeedForward(
            width,
            fields.get("intermediate_size"),
            activation=activation,
            normalization=rms_norm(width, eps),
            bias=fields.get("mlp_bias", False),
            key=keys[1],
        )
        return attention, feed_forward

    scale = options.get("scaled_embedding", False)
    return LanguageModel(
        fields.get("vocab_size"),
        fields.get("max_position_embeddings", 2048),
        width,
        control=layers(block, fields.get("num_hidden_layers")),
        constraint=Free(),
        discretization=PRE_NORM,
        learned_positions=False,
        tied=fields.get("tie_word_embeddings", scale),
        embedding_scale=width**0.5 if scale else 1.0,
        output_normalization=rms_norm(width, eps),
        key=KEY,
    )


def table(model: LanguageModel, *, shift: float = 0.0) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield Placement(model.embedding, "embed_tokens.weight")
    layer = "layers.{layer}"
    yield from linear(attention.query, f"{layer}.self_attn.q_proj")
    yield from linear(attention.key, f"{layer}.self_attn.k_proj")
    yield from linear(attention.value, f"{layer}.self_attn.v_proj")
    yield from linear(attention.output, f"{layer}.self_attn.o_proj")
    yield from norm(attention.query_normalization, f"{layer}.self_attn.q_norm")
    yield from norm(attention.key_normalization, f"{layer}.self_attn.k_norm")
    yield from linear(feed_forward.gate, f"{layer}.mlp.gate_proj")
    yield from linear(feed_forward.inner, f"{layer}.mlp.up_proj")
    yield from linear(feed_forward.outer, f"{layer}.mlp.down_proj")
    yield from norm(attention.normalization, f"{layer}.input_layernorm", shift=shift)
    after = f"{layer}.post_attention_layernorm"
    yield from norm(feed_forward.normalization, after, shift=shift)
    yield from norm(model.output_normalization, "norm", shift=shift)
    if model.readout is not None:
        yield Placement(model.readout, "lm_head.weight")


def _family(attention_options, *, shift: float = 0.0, **options) -> Family:
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
