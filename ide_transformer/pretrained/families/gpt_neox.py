"""GPT-NeoX (Black et al., arXiv 2204.06745), Pythia: the parallel block, which is unsplit
Euler, with rotary positions of a part of each head."""

import functools as ft
from collections.abc import Iterator, Set

from ...equation import Attention, FeedForward
from ...models import LanguageModel
from ..builders import any_key, layer_norm, pre_norm
from ..family import ACTIVATIONS, Family
from ..options import Options
from ..placement import Placement, block, linear, linears, norm
from ..rotary import rotary
from ..rows import head_part_rows


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    width, heads = options.get("hidden_size"), options.get("num_attention_heads")
    normalization = layer_norm(width, options.get("layer_norm_eps", 1e-5))
    attention = ft.partial(
        Attention,
        *(width, heads),
        causal=True,
        positions=rotary(
            options,
            width // heads,
            fraction=options.get("rotary_pct", 0.25),
            base=float(options.get("rotary_emb_base", 10000)),
        ),
        normalization=normalization,
        bias=options.get("attention_bias", True),
    )
    feed_forward = ft.partial(
        FeedForward,
        *(width, options.get("intermediate_size")),
        activation=options.choose("hidden_act", ACTIVATIONS, "gelu"),
        normalization=normalization,
    )
    parallel = options.get("use_parallel_residual", True)
    return LanguageModel(
        options.get("vocab_size"),
        options.get("max_position_embeddings", 2048),
        width,
        **pre_norm(
            options.get("num_hidden_layers"), attention, feed_forward, parallel=parallel
        ),
        learned_positions=False,
        tied=options.get("tie_word_embeddings", False),
        output_normalization=normalization,
        key=any_key(),
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "embed_in.weight")
    layer = "layers.{layer}"
    heads = attention.heads
    for index, part in enumerate((attention.query, attention.key, attention.value)):
        rows = head_part_rows(index, 3, heads, model.features // heads)
        yield from linear(part, f"{layer}.attention.query_key_value", rows=rows)
    yield from linear(attention.output, f"{layer}.attention.dense")
    names = dict(inner="dense_h_to_4h", outer="dense_4h_to_h")
    yield from linears(feed_forward, f"{layer}.mlp", **names)
    yield from norm(attention.normalization, f"{layer}.input_layernorm")
    yield from norm(feed_forward.normalization, f"{layer}.post_attention_layernorm")
    yield from norm(model.output_normalization, "final_layer_norm")
    if model.readout is not None:
        yield Placement(model.readout, "embed_out.weight")


FAMILIES = {
    "gpt_neox": Family(
        build,
        table,
        prefix="gpt_neox.",
        ignored=r"layers\.\d+\.attention\.(masked_bias|bias|rotary_emb\.inv_freq)",
    )
}
