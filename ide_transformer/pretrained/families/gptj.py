"""GPT-J (Wang, Komatsuzaki, 2021): the parallel block, which is unsplit Euler, with one
normalisation for attention and feed-forward; rotary pairs are neighbours."""

from collections.abc import Iterator, Set

from ...equation import Rotary
from ...models import LanguageModel
from .. import make
from ..family import Family
from ..options import Options
from ..placement import Placement, block, linear, linears, neighbours_to_halves, norm
from .gpt2 import HARMLESS, gpt2_options, make_gpt2_feed_forward


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    options.allow("rotary", True)
    options.allow("scale_attn_weights", True)
    options = gpt2_options(options)
    width, turning = options.size("hidden_size"), options.size("rotary_dim", 64)
    head_features = options.divided("hidden_size", "num_attention_heads")
    make.check_turning(options, turning, head_features, "rotary_dim")
    return make.language_model(
        options,
        context=2048,
        **make.pre_norm(
            options,
            make.layer_norm(width, options.number("layer_norm_eps", 1e-5)),
            make.attention(
                options, causal=True, positions=Rotary(features=turning), bias=False
            ),
            make_gpt2_feed_forward(options),
            parallel=True,
        ),
        learned_positions=False,
        readout_bias=True,
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "wte.weight")
    layer = "h.{layer}"
    head_features = model.features // attention.heads
    turning = attention.positions.features
    rows = neighbours_to_halves(attention.heads, head_features, turning)
    yield from linear(attention.query, f"{layer}.attn.q_proj", rows=rows)
    yield from linear(attention.key, f"{layer}.attn.k_proj", rows=rows)
    yield from linears(attention, f"{layer}.attn", value="v_proj", output="out_proj")
    yield from linears(feed_forward, f"{layer}.mlp", inner="fc_in", outer="fc_out")
    yield from norm(attention.normalization, f"{layer}.ln_1")
    yield from norm(feed_forward.normalization, f"{layer}.ln_1")
    yield from norm(model.output_normalization, "ln_f")
    yield Placement(model.readout, "lm_head.weight")
    yield Placement(model.readout_bias, "lm_head.bias")


FAMILIES = {
    "gptj": Family(
        build,
        table,
        prefix="transformer.",
        ignored=r"h\.\d+\.attn\.(masked_bias|bias|embed_positions)",
        copies={"lm_head.weight": "wte.weight"},
        harmless=HARMLESS,
    )
}
