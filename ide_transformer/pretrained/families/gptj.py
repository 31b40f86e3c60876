"""GPT-J (Wang, Komatsuzaki, 2021): the parallel block, which is unsplit Euler, with one
normalisation for attention and feed-forward; rotary pairs are neighbours."""

import functools as ft
from collections.abc import Iterator, Set

from ...equation import Attention, FeedForward, Rotary
from ...models import LanguageModel
from ..builders import any_key, layer_norm, pre_norm
from ..family import ACTIVATIONS, Family
from ..options import Options
from ..placement import Placement, block, linear, linears, norm
from ..rows import neighbours_to_halves


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    width, heads = options.get("n_embd"), options.get("n_head")
    hidden = options.get("n_inner", None) or 4 * width
    activation = options.choose("activation_function", ACTIVATIONS, "gelu_new")
    normalization = layer_norm(width, options.get("layer_norm_epsilon", 1e-5))
    attention = ft.partial(
        Attention,
        *(width, heads),
        causal=True,
        positions=Rotary(features=options.get("rotary_dim", 64) or width // heads),
        normalization=normalization,
        bias=False,
    )
    feed_forward = ft.partial(
        FeedForward, width, hidden, activation=activation, normalization=normalization
    )
    return LanguageModel(
        options.get("vocab_size"),
        options.get("n_positions", 2048),
        width,
        **pre_norm(options.get("n_layer"), attention, feed_forward, parallel=True),
        learned_positions=False,
        tied=options.get("tie_word_embeddings", False),
        readout_bias=True,
        output_normalization=normalization,
        key=any_key(),
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
    if model.readout is not None:
        yield Placement(model.readout, "lm_head.weight")
    yield Placement(model.readout_bias, "lm_head.bias")


FAMILIES = {
    "gptj": Family(
        build,
        table,
        prefix="transformer.",
        ignored=r"h\.\d+\.attn\.(masked_bias|bias|embed_positions)|lm_head\.weight",
    )
}
