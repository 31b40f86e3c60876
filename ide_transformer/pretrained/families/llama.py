"""Llama (Touvron et al., arXiv 2302.13971) and relatives: pre-norm decoders with RMSNorm,
rotary positions, grouped queries and a gated feed-forward. Mistral adds a window, Qwen2 biases,
Qwen3 normalised queries and keys, Gemma gains of 1 + g and a scaled embedding. glassllm stores
neighbouring rotary pairs and `[in, out]` matrices."""

import functools as ft
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from ...equation import GatedFeedForward
from ...models import LanguageModel, Model, is_built_as
from .. import make
from ..family import Family, Placement, block, layers_by, neighbours_to_halves, weights_of
from ..options import Options


def _llama(options: Options, head_features: int) -> dict[str, Any]:
    options.allow("rope_interleaved", False)
    return _equal_biases(options)


def _mistral(options: Options, head_features: int) -> dict[str, Any]:
    return dict(bias=False, window=options.size("sliding_window", 4096, nullable=True))


def _qwen2(options: Options, head_features: int) -> dict[str, Any]:
    options.allow("use_mrope", False)
    return dict(bias=True, output_bias=False, window=_window_of_all_layers(options))


def _qwen3(options: Options, head_features: int) -> dict[str, Any]:
    norm = make.rms_norm(head_features, options.number("rms_norm_eps", 1e-6))
    norms = dict(query_normalization=norm, key_normalization=norm)
    return dict(window=_window_of_all_layers(options), **norms, **_equal_biases(options))


def _gemma(options: Options, head_features: int) -> dict[str, Any]:
    options.allow("attn_logit_softcapping", None)
    options.allow("final_logit_softcapping", None)
    options.allow("use_bidirectional_attention", None, False)
    return _equal_biases(options)


def _equal_biases(options: Options) -> dict[str, Any]:
    bias = options.flag("attention_bias", False)
    return dict(bias=bias, output_bias=bias)


def _window_of_all_layers(options: Options) -> int | None:
    """Qwen's window. Raises `InputError` if only some layers have it."""
    layers = options.size("num_hidden_layers")
    full = options.size("max_window_layers", 28, least=0)
    window = options.size("sliding_window", 4096, nullable=True)
    window = window if options.flag("use_sliding_window", False) else None
    types = options.get("layer_types", None)
    if types is None and not (window and full < layers):
        return None
    if types is None and full == 0:
        return window
    if types == ["full_attention"] * layers:
        return None
    if types == ["sliding_attention"] * layers and window:
        return window
    name = "max_window_layers" if types is None else "layer_types"
    reason = f"not supported: all num_hidden_layers={layers} must have a window, or none"
    raise options.refused(name, full if types is None else types, reason)


def _build(
    options: Options,
    tensors: Set[str],
    *,
    attention: Callable[[Options, int], dict[str, Any]],
    context: int = 2048,
    mlp_bias: bool = False,
    scaled_embedding: bool = False,
) -> Model:
    """A decoder. `attention` returns a family's arguments of attention."""
    width = options.size("hidden_size")
    key_value_heads = None
    head_features = options.size("head_dim", None)
    if head_features is None:
        head_features = options.divided("hidden_size", "num_attention_heads")
    if options.size("num_key_value_heads", None) is not None:
        options.divided("num_attention_heads", "num_key_value_heads")
        key_value_heads = options.size("num_key_value_heads")
    return make.language_model(
        options,
        make.rms_norm(width, options.number("rms_norm_eps", 1e-6)),
        make.attention(
            options,
            causal=True,
            positions=make.rotary(options, head_features),
            head_features=head_features,
            key_value_heads=key_value_heads,
            **attention(options, head_features),
        ),
        make.feed_forward(
            options,
            GatedFeedForward,
            activation="silu",
            bias=mlp_bias and options.flag("mlp_bias", False),
        ),
        context=context,
        tied=scaled_embedding,
        learned_positions=False,
        embedding_scale=width**0.5 if scaled_embedding else 1.0,
    )


def _llama_options(model: Any) -> dict[str, Any] | None:
    if not is_built_as(model, LanguageModel):
        return None
    options = make.options_of(model)
    biased = {
        name: make.first_of(model, path, None) is not None
        for name, path in (("attention_bias", "query.bias"), ("mlp_bias", "outer.bias"))
    }
    return dict(
        architectures=["LlamaForCausalLM"],
        vocab_size=model.inputs.vocabulary,
        max_position_embeddings=model.inputs.context,
        num_key_value_heads=make.first_of(model, "key_value_heads", None),
        head_dim=make.first_of(model, "head_features", None),
        rms_norm_eps=options.pop("layer_norm_eps"),
        rope_theta=make.first_of(model, "positions.base", 10000.0),
        tie_word_embeddings=model.read_out.weight is None,
        **biased,
        **options,
    )


def _build_gemma(options: Options, tensors: Set[str]) -> Model:
    # The release calls the approximation "gelu".
    activation = options.get("hidden_act", "gelu")
    activation = "gelu_pytorch_tanh" if activation == "gelu" else activation
    options.allow("hidden_activation", None, activation)
    options = replace(options, values={**options.values, "hidden_act": activation})
    return _build(options, tensors, attention=_gemma, context=8192, scaled_embedding=True)


def _build_glassllm(options: Options, tensors: Set[str]) -> Model:
    names = dict(
        hidden_size="d_model",
        num_hidden_layers="n_layers",
        num_attention_heads="n_heads",
        num_key_value_heads="n_kv_heads",
        max_position_embeddings="max_len",
        rope_theta="rope_base",
        rms_norm_eps="eps",
    )
    values = {name: options.get(name) for name in (*names.values(), "vocab_size")}
    values["intermediate_size"] = int(8 * options.size("d_model") / 3)
    values["tie_word_embeddings"] = True
    llama = Options(values, options.file).renamed(**names)
    return _build(llama, tensors, attention=_llama)


def _qwen_layers(layers: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    changed = layers_by("num_hidden_layers")(layers, options)
    if types := options.get("layer_types"):
        changed["layer_types"] = types[: layers[0]]
    return changed


def _table(model: Any) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    layer = "layers.{layer}"
    names = dict(query="q_proj", key="k_proj", value="v_proj", output="o_proj")
    names |= dict(query_normalization="q_norm", key_normalization="k_norm")
    yield from weights_of(attention, f"{layer}.self_attn", **names)
    yield from weights_of(attention, layer, normalization="input_layernorm")
    yield from weights_of(feed_forward, layer, normalization="post_attention_layernorm")
    names = dict(gate="gate_proj", inner="up_proj", outer="down_proj")
    yield from weights_of(feed_forward, f"{layer}.mlp", **names)
    yield from weights_of(model.inputs, embedding="embed_tokens.weight")
    yield from weights_of(model.read_out, weight="lm_head.weight", normalization="norm")


def _gemma_table(model: Any) -> Iterator[Placement]:
    for place in _table(model):
        yield place._replace(shift=1.0) if place.name.endswith("norm.weight") else place


def _glassllm_table(model: Any) -> Iterator[Placement]:
    attention, _ = block(model.control)
    head_features = attention.query.weight.shape[-1] // attention.heads
    heads = {"q_proj": attention.heads, "k_proj": attention.key_value_heads}
    for place in _table(model):
        num_heads = heads.get(place.name.split(".")[-2])
        rows = num_heads and neighbours_to_halves(num_heads, head_features, head_features)
        yield place._replace(axes=None, rows=rows)


# Maps names in glassllm to names in Llama.
_TENSORS = {
    "E": "embed_tokens.weight",
    "blocks": "layers",
    "attn.W_Q": "self_attn.q_proj.weight",
    "attn.W_K": "self_attn.k_proj.weight",
    "attn.W_V": "self_attn.v_proj.weight",
    "attn.W_O": "self_attn.o_proj.weight",
    "ffn.W1": "mlp.gate_proj.weight",
    "ffn.W2": "mlp.down_proj.weight",
    "ffn.W3": "mlp.up_proj.weight",
    "norm1.gamma": "input_layernorm.weight",
    "norm2.gamma": "post_attention_layernorm.weight",
    "norm_f.gamma": "norm.weight",
}


def _family(
    build: Callable[..., Model], harmless: str = "", table: Callable = _table, **fields: Any
) -> Family:
    return Family(
        build,
        table,
        prefix="model.",
        ignored=r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
        copies={"lm_head.weight": "embed_tokens.weight"},
        harmless=f"attention_dropout {harmless}",
        **fields,
    )


FAMILIES = {
    "llama": _family(
        ft.partial(_build, attention=_llama, mlp_bias=True),
        "is_llama_config pretraining_tp",
        options_of=_llama_options,
        head="lm_head",
    ),
    "mistral": _family(ft.partial(_build, attention=_mistral, context=131072)),
    "qwen2": _family(ft.partial(_build, attention=_qwen2, context=32768), layers=_qwen_layers),
    "qwen3": _family(ft.partial(_build, attention=_qwen3, context=32768), layers=_qwen_layers),
    "gemma": _family(_build_gemma, table=_gemma_table),
    "glassllm": Family(
        _build_glassllm,
        _glassllm_table,
        renamed=_TENSORS,
        harmless="init_std",
        layers=layers_by("n_layers"),
    ),
}
