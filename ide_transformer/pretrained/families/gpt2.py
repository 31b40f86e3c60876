"""GPT-2 (Radford et al., 2019): pre-norm, learned positions; Conv1D stores `[in, out]`."""

from collections.abc import Iterator, Set

from ...models import LanguageModel
from .. import make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, fused, linear, norm


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    options.allow("scale_attn_weights", True)
    options.allow("scale_attn_by_inverse_layer_idx", False)
    options = gpt2_options(options)
    equation = make.pre_norm(
        options,
        make.layer_norm(options.size("hidden_size"), options.number("layer_norm_eps", 1e-5)),
        make.attention(options, causal=True),
        make_gpt2_feed_forward(options),
    )
    return make.language_model(options, 1024, tied=True, **equation)


def gpt2_options(options: Options) -> Options:
    return options.renamed(
        hidden_size="n_embd",
        num_hidden_layers="n_layer",
        num_attention_heads="n_head",
        max_position_embeddings="n_positions",
        hidden_act="activation_function",
        layer_norm_eps="layer_norm_epsilon",
    )


def make_gpt2_feed_forward(options: Options) -> make.MakeOperator:
    hidden = options.size("n_inner", None) or 4 * options.size("hidden_size")
    return make.feed_forward(options, hidden=hidden, activation="gelu_new")


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "wte.weight")
    yield Placement(model.positions, "wpe.weight")
    layer = "h.{layer}"
    projections = (attention.query, attention.key, attention.value)
    yield from fused(projections, f"{layer}.attn.c_attn", transposed=False)
    yield from linear(attention.output, f"{layer}.attn.c_proj", transposed=False)
    yield from linear(feed_forward.inner, f"{layer}.mlp.c_fc", transposed=False)
    yield from linear(feed_forward.outer, f"{layer}.mlp.c_proj", transposed=False)
    yield from norm(attention.normalization, f"{layer}.ln_1")
    yield from norm(feed_forward.normalization, f"{layer}.ln_2")
    yield from norm(model.output_normalization, "ln_f")
    yield Placement(model.readout, "lm_head.weight")


# Older names, dropout and the head of the classifier.
HARMLESS = (
    "_num_labels attn_pdrop embd_pdrop n_ctx n_special predict_special_tokens resid_pdrop "
    "summary_activation summary_first_dropout summary_proj_to_labels summary_type "
    "summary_use_proj"
)

FAMILIES = {
    "gpt2": Family(
        build,
        table,
        prefix="transformer.",
        ignored=r"h\.\d+\.attn\.(masked_)?bias",
        copies={"lm_head.weight": "wte.weight"},
        # The scores in single precision, in another order.
        harmless=f"{HARMLESS} reorder_and_upcast_attn",
    )
}
