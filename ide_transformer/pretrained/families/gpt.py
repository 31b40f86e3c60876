"""Pre-norm decoders: GPT-2 (Radford et al., 2019), and with the parallel block, unsplit Euler,
GPT-J (Wang, Komatsuzaki, 2021) and GPT-NeoX and Pythia (Black et al., arXiv 2204.06745)."""

from collections.abc import Iterator, Set
from typing import Any

from ...equation import Rotary
from ...models import LanguageModel, Model, is_built_as
from .. import make
from ..family import (
    Family,
    Placement,
    block,
    fused,
    layers_by,
    linear,
    neighbours_to_halves,
    weights_of,
)
from ..options import Options


def _build_gpt2(options: Options, tensors: Set[str]) -> Model:
    options.allow("scale_attn_by_inverse_layer_idx", False)
    return _gpt(options, {}, context=1024, tied=True)


def _gpt2_options(model: Any) -> dict[str, Any] | None:
    if not is_built_as(model, LanguageModel):
        return None
    options = make.options_of(model)
    return dict(
        architectures=["GPT2LMHeadModel"],
        vocab_size=model.inputs.vocabulary,
        n_positions=model.inputs.context,
        n_embd=options["hidden_size"],
        n_layer=options["num_hidden_layers"],
        n_head=options["num_attention_heads"],
        n_inner=options["intermediate_size"],
        activation_function=options["hidden_act"],
        layer_norm_epsilon=options["layer_norm_eps"],
        tie_word_embeddings=model.read_out.weight is None,
    )


def _build_gptj(options: Options, tensors: Set[str]) -> Model:
    options.allow("rotary", True)
    turning = options.size("rotary_dim", 64)
    make.check_turning(options, turning, options.divided("n_embd", "n_head"), "rotary_dim")
    return _gpt(
        options,
        dict(positions=Rotary(features=turning), bias=False),
        context=2048,
        parallel=True,
        learned_positions=False,
        readout_bias=True,
    )


def _gpt(options: Options, attention: dict[str, Any], **arguments: Any) -> Model:
    options.allow("scale_attn_weights", True)
    options = options.renamed(
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions",
        hidden_act="activation_function",
        layer_norm_eps="layer_norm_epsilon",
    )
    hidden = options.size("n_inner", None) or 4 * options.size("hidden_size")
    return make.language_model(
        options,
        make.layer_norm(options.size("hidden_size"), options.number("layer_norm_eps", 1e-5)),
        make.attention(options, causal=True, **attention),
        make.feed_forward(options, hidden=hidden, activation="gelu_new"),
        **arguments,
    )


def _build_gpt_neox(options: Options, tensors: Set[str]) -> Model:
    positions = make.rotary(
        options.renamed(rope_theta="rotary_emb_base", partial_rotary_factor="rotary_pct"),
        options.divided("hidden_size", "num_attention_heads"),
        fraction=0.25,
    )
    bias = options.flag("attention_bias", True)
    return make.language_model(
        options,
        make.layer_norm(options.size("hidden_size"), options.number("layer_norm_eps", 1e-5)),
        make.attention(options, causal=True, positions=positions, bias=bias),
        make.feed_forward(options),
        context=2048,
        parallel=options.flag("use_parallel_residual", True),
        learned_positions=False,
    )


def _gpt2_table(model: Any) -> Iterator[Placement]:
    # Matrices are stored as `[in, out]`.
    attention, feed_forward = block(model.control)
    layer = "h.{layer}"
    projections = (attention.query, attention.key, attention.value)
    yield from fused(projections, f"{layer}.attn.c_attn", axes=None)
    yield from linear(attention.output, f"{layer}.attn.c_proj", axes=None)
    yield from linear(feed_forward.inner, f"{layer}.mlp.c_fc", axes=None)
    yield from linear(feed_forward.outer, f"{layer}.mlp.c_proj", axes=None)
    yield from weights_of(attention, layer, normalization="ln_1")
    yield from weights_of(feed_forward, layer, normalization="ln_2")
    yield from weights_of(model.inputs, embedding="wte.weight", positions="wpe.weight")
    yield from weights_of(model.read_out, normalization="ln_f", weight="lm_head.weight")


def _gptj_table(model: Any) -> Iterator[Placement]:
    # The operators share a normalisation, and rotary pairs are neighbours.
    attention, feed_forward = block(model.control)
    layer = "h.{layer}"
    head_features = model.features // attention.heads
    turning = attention.positions.features
    rows = neighbours_to_halves(attention.heads, head_features, turning)
    yield from linear(attention.query, f"{layer}.attn.q_proj", rows=rows)
    yield from linear(attention.key, f"{layer}.attn.k_proj", rows=rows)
    yield from weights_of(attention, f"{layer}.attn", value="v_proj", output="out_proj")
    yield from weights_of(feed_forward, f"{layer}.mlp", inner="fc_in", outer="fc_out")
    yield from weights_of(attention, layer, normalization="ln_1")
    yield from weights_of(feed_forward, layer, normalization="ln_1")
    yield from weights_of(model.inputs, embedding="wte.weight")
    names = dict(weight="lm_head.weight", bias="lm_head.bias")
    yield from weights_of(model.read_out, **names, normalization="ln_f")


def _gpt_neox_table(model: Any) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    layer = "layers.{layer}"
    projections = (attention.query, attention.key, attention.value)
    yield from fused(projections, f"{layer}.attention.query_key_value", groups=attention.heads)
    names = dict(output="attention.dense", normalization="input_layernorm")
    yield from weights_of(attention, layer, **names)
    names = dict(inner="mlp.dense_h_to_4h", outer="mlp.dense_4h_to_h")
    yield from weights_of(feed_forward, layer, **names)
    yield from weights_of(feed_forward, layer, normalization="post_attention_layernorm")
    yield from weights_of(model.inputs, embedding="embed_in.weight")
    names = dict(weight="embed_out.weight", normalization="final_layer_norm")
    yield from weights_of(model.read_out, **names)


# Older names, dropout and a classification head.
_HARMLESS = (
    "_num_labels attn_pdrop embd_pdrop n_ctx n_special predict_special_tokens resid_pdrop "
    "summary_activation summary_first_dropout summary_proj_to_labels summary_type "
    "summary_use_proj"
)

FAMILIES = {
    "gpt2": Family(
        _build_gpt2,
        _gpt2_table,
        prefix="transformer.",
        ignored=r"h\.\d+\.attn\.(masked_)?bias",
        copies={"lm_head.weight": "wte.weight"},
        # The precision and the order of scores.
        harmless=f"{_HARMLESS} reorder_and_upcast_attn",
        options_of=_gpt2_options,
        head="lm_head",
        layers=layers_by("n_layer"),
    ),
    "gptj": Family(
        _build_gptj,
        _gptj_table,
        prefix="transformer.",
        ignored=r"h\.\d+\.attn\.(masked_bias|bias|embed_positions)",
        copies={"lm_head.weight": "wte.weight"},
        harmless=_HARMLESS,
        layers=layers_by("n_layer"),
    ),
    "gpt_neox": Family(
        _build_gpt_neox,
        _gpt_neox_table,
        prefix="gpt_neox.",
        ignored=r"layers\.\d+\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)",
        copies={"embed_out.weight": "embed_in.weight"},
        renamed={"lm_head": "embed_out"},
        harmless="attention_dropout attention_probs_dropout_prob classifier_dropout "
        "hidden_dropout hidden_dropout_prob partial_rotary_factor rope_theta",
    ),
}
