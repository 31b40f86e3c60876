"""GPT-NeoX (Black et al., arXiv 2204.06745), Pythia: the parallel block, which is unsplit
Euler, with rotary positions of a part of each head."""

from collections.abc import Iterator, Set

from ...models import LanguageModel
from .. import make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, fused, linear, linears, norm


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    width = options.size("hidden_size")
    positions = make.rotary(
        options.renamed(rope_theta="rotary_emb_base", partial_rotary_factor="rotary_pct"),
        options.divided("hidden_size", "num_attention_heads"),
        fraction=0.25,
    )
    bias = options.flag("attention_bias", True)
    return make.language_model(
        options,
        context=2048,
        **make.pre_norm(
            options,
            make.layer_norm(width, options.number("layer_norm_eps", 1e-5)),
            make.attention(options, causal=True, positions=positions, bias=bias),
            make.feed_forward(options),
            parallel=options.flag("use_parallel_residual", True),
        ),
        learned_positions=False,
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "embed_in.weight")
    layer = "layers.{layer}"
    projections = (attention.query, attention.key, attention.value)
    yield from fused(projections, f"{layer}.attention.query_key_value", groups=attention.heads)
    yield from linear(attention.output, f"{layer}.attention.dense")
    names = dict(inner="dense_h_to_4h", outer="dense_4h_to_h")
    yield from linears(feed_forward, f"{layer}.mlp", **names)
    yield from norm(attention.normalization, f"{layer}.input_layernorm")
    yield from norm(feed_forward.normalization, f"{layer}.post_attention_layernorm")
    yield from norm(model.output_normalization, "final_layer_norm")
    yield Placement(model.readout, "embed_out.weight")


FAMILIES = {
    "gpt_neox": Family(
        build,
        table,
        prefix="gpt_neox.",
        ignored=r"layers\.\d+\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)",
        copies={"embed_out.weight": "embed_in.weight"},
        renamed=((r"lm_head\b", "embed_out"),),
        harmless="attention_dropout attention_probs_dropout_prob classifier_dropout "
        "hidden_dropout hidden_dropout_prob partial_rotary_factor rope_theta",
    )
}
