"""GPT-NeoX (Black et al., arXiv 2204.06745), Pythia: the parallel block, which is unsplit
Euler, with rotary positions of a part of each head."""

from collections.abc import Iterator, Set

from ...equation import Free
from ...models import LanguageModel
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import (
    KEY,
    PARALLEL,
    PRE_NORM,
    block_maker,
    layer_norm,
    layers,
    part_of_heads,
    rotary,
)
from ..placement import Placement, linear, norm


def build(fields: Fields, names: Set[str]) -> LanguageModel:
    width, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    eps = fields.get("layer_norm_eps", 1e-5)
    activation = fields.choose("hidden_act", ACTIVATIONS, "gelu")
    options = Fields(dict(fields.values), fields.file)
    # The names of these options before those that all families share.
    options.values.setdefault("partial_rotary_factor", fields.get("rotary_pct", 0.25))
    options.values.setdefault("rope_theta", fields.get("rotary_emb_base", 10000))
    positions = rotary(options, width // heads)

    block = block_maker(
        width,
        heads,
        fields.get("intermediate_size"),
        activation,
        normalization=lambda: layer_norm(width, eps),
        causal=True,
        positions=positions,
        bias=fields.get("attention_bias", True),
    )
    return LanguageModel(
        fields.get("vocab_size"),
        fields.get("max_position_embeddings", 2048),
        width,
        control=layers(block, fields.get("num_hidden_layers")),
        constraint=Free(),
        discretization=PARALLEL if fields.get("use_parallel_residual", True) else PRE_NORM,
        learned_positions=False,
        tied=fields.get("tie_word_embeddings", False),
        output_normalization=layer_norm(width, eps),
        key=KEY,
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield Placement(model.embedding, "embed_in.weight")
    layer = "layers.{layer}"
    heads = attention.heads
    head_features = attention.query.weight.shape[-1] // heads
    for index, part in enumerate((attention.query, attention.key, attention.value)):
        rows = part_of_heads(index, 3, heads, head_features)
        yield from linear(part, f"{layer}.attention.query_key_value", rows=rows)
    yield from linear(attention.output, f"{layer}.attention.dense")
    yield from linear(feed_forward.inner, f"{layer}.mlp.dense_h_to_4h")
    yield from linear(feed_forward.outer, f"{layer}.mlp.dense_4h_to_h")
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
