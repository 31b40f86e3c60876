"""GPT-J (Wang, Komatsuzaki, 2021): the parallel block, which is unsplit Euler, attention and
feed-forward behind one normalisation; rotary pairs are neighbours."""

from collections.abc import Iterator, Set

from ...equation import Free, Rotary
from ...models import LanguageModel
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import KEY, PARALLEL, block_maker, layer_norm, layers, neighbours_to_halves
from ..placement import Placement, linear, norm


def build(fields: Fields, names: Set[str]) -> LanguageModel:
    width, heads = fields.get("n_embd"), fields.get("n_head")
    eps = fields.get("layer_norm_epsilon", 1e-5)
    activation = fields.choose("activation_function", ACTIVATIONS, "gelu_new")
    hidden = fields.get("n_inner", None) or 4 * width
    turning = fields.get("rotary_dim", 64) or width // heads

    block = block_maker(
        width,
        heads,
        hidden,
        activation,
        normalization=lambda: layer_norm(width, eps),
        causal=True,
        positions=Rotary(features=turning),
        bias=False,
    )
    return LanguageModel(
        fields.get("vocab_size"),
        fields.get("n_positions", 2048),
        width,
        control=layers(block, fields.get("n_layer")),
        constraint=Free(),
        discretization=PARALLEL,
        learned_positions=False,
        tied=fields.get("tie_word_embeddings", False),
        readout_bias=True,
        output_normalization=layer_norm(width, eps),
        key=KEY,
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield Placement(model.embedding, "wte.weight")
    layer = "h.{layer}"
    heads, width = attention.heads, model.embedding.shape[1]
    rows = neighbours_to_halves(heads, width // heads, attention.positions.features)
    yield from linear(attention.query, f"{layer}.attn.q_proj", rows=rows)
    yield from linear(attention.key, f"{layer}.attn.k_proj", rows=rows)
    yield from linear(attention.value, f"{layer}.attn.v_proj")
    yield from linear(attention.output, f"{layer}.attn.out_proj")
    yield from linear(feed_forward.inner, f"{layer}.mlp.fc_in")
    yield from linear(feed_forward.outer, f"{layer}.mlp.fc_out")
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
