"""Llama (Touvron et al., arXiv 2302.13971) and its relatives: pre-norm with RMSNorm, rotary
positions, grouped queries and a gated feed-forward. Mistral adds a window, Qwen2 biases of
queries, keys and values, Qwen3 normalised queries and keys, Gemma gains of 1 + g and a scaled
embedding."""

import functools as ft
from collections.abc import Callable, Iterator, Set
from typing import Any

from ...equation import GatedFeedForward
from ...models import LanguageModel
from .. import make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, linears, norm


AttentionOptions = Callable[[Options], dict[str, Any]]


def llama_attention(options: Options) -> dict[str, Any]:
    options.allow("rope_interleaved", False)
    bias = options.flag("attention_bias", False)
    return dict(
        key_value_heads=options.size("num_key_value_heads", None),
        head_features=options.size("head_dim", None),
        bias=bias,
        output_bias=bias,
    )


def _mistral(options: Options) -> dict[str, Any]:
    return dict(
        key_value_heads=options.size("num_key_value_heads"),
        head_features=options.size("head_dim", None),
        bias=False,
        window=options.size("sliding_window", 4096, nullable=True),
    )


def _qwen2(options: Options) -> dict[str, Any]:
    options.allow("use_mrope", False)
    return dict(
        key_value_heads=options.size("num_key_value_heads", nullable=True),
        head_features=options.size("head_dim", None),
        bias=True,
        output_bias=False,
        window=_window_of_all_layers(options),
    )


def _qwen3(options: Options) -> dict[str, Any]:
    bias, head_features = options.flag("attention_bias", False), options.size("head_dim")
    head_norm = make.rms_norm(head_features, options.number("rms_norm_eps", 1e-6))
    return dict(
        key_value_heads=options.size("num_key_value_heads", nullable=True),
        head_features=head_features,
        bias=bias,
        output_bias=bias,
        window=_window_of_all_layers(options),
        query_normalization=head_norm,
        key_normalization=head_norm,
    )


def _gemma(options: Options) -> dict[str, Any]:
    options.allow("attn_logit_softcapping", None)
    options.allow("final_logit_softcapping", None)
    options.allow("use_bidirectional_attention", None, False)
    bias = options.flag("attention_bias", False)
    return dict(
        key_value_heads=options.size("num_key_value_heads"),
        head_features=options.size("head_dim"),
        bias=bias,
        output_bias=bias,
    )


def _window_of_all_layers(options: Options) -> int | None:
    """The window of Qwen, which the layers have from a number on, or those that the file names
    one by one."""
    layers = options.size("num_hidden_layers")
    full = options.size("max_window_layers", 28, least=0)
    window = options.size("sliding_window", 4096, nullable=True)
    window = window if options.flag("use_sliding_window", False) else None
    name, value = "max_window_layers", full
    windowed = max(layers - full, 0) if window else 0
    if (types := options.get("layer_types", None)) is not None:
        name, value, windowed = "layer_types", types, None
        if types == ["full_attention"] * layers:
            windowed = 0
        elif types == ["sliding_attention"] * layers and window:
            windowed = layers
    if windowed in (0, layers):
        return window if windowed else None
    why = f"not supported: all {layers} layers (num_hidden_layers) have a window, or none"
    raise options.refused(name, value, why)


def build(
    options: Options,
    tensors: Set[str],
    *,
    attention_options: AttentionOptions,
    context: int = 2048,
    scaled_embedding: bool = False,
) -> LanguageModel:
    width, own = options.size("hidden_size"), attention_options(options)
    if own["head_features"] is None:
        own["head_features"] = options.divided("hidden_size", "num_attention_heads")
    if own["key_value_heads"] is not None:
        options.divided("num_attention_heads", "num_key_value_heads")
    attention = make.attention(
        options, causal=True, positions=make.rotary(options, own["head_features"]), **own
    )
    feed_forward = make.feed_forward(
        options,
        GatedFeedForward,
        activation="silu",
        bias=attention_options is llama_attention and options.flag("mlp_bias", False),
    )
    normalization = make.rms_norm(width, options.number("rms_norm_eps", 1e-6))
    return make.language_model(
        options,
        context=context,
        tied=scaled_embedding,
        **make.pre_norm(options, normalization, attention, feed_forward),
        learned_positions=False,
        embedding_scale=width**0.5 if scaled_embedding else 1.0,
    )


def _build_gemma(options: Options, tensors: Set[str]) -> LanguageModel:
    # Written "gelu" by the release, meant as its approximation.
    meant = options.get("hidden_act", "gelu")
    meant = "gelu_pytorch_tanh" if meant == "gelu" else meant
    options.allow("hidden_activation", None, meant)
    return build(
        options.replaced(hidden_act=meant),
        tensors,
        attention_options=_gemma,
        context=8192,
        scaled_embedding=True,
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


def _family(
    build: Callable[..., LanguageModel], harmless: str = "", *, shift: float = 0.0
) -> Family:
    return Family(
        build,
        ft.partial(table, shift=shift),
        prefix="model.",
        ignored=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
        copies={"lm_head.weight": "embed_tokens.weight"},
        harmless=f"attention_dropout {harmless}",
    )


FAMILIES = {
    "llama": _family(
        ft.partial(build, attention_options=llama_attention), "is_llama_config pretraining_tp"
    ),
    "mistral": _family(ft.partial(build, attention_options=_mistral, context=131072)),
    "qwen2": _family(ft.partial(build, attention_options=_qwen2, context=32768)),
    "qwen3": _family(ft.partial(build, attention_options=_qwen3, context=32768)),
    "gemma": _family(_build_gemma, shift=1.0),
}
