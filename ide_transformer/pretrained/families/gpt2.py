"""GPT-2 (Radford et al., 2019): pre-norm, learned positions; Conv1D stores `[in, out]`."""

from collections.abc import Iterator, Set

from ...equation import Free
from ...models import LanguageModel
from ..family import ACTIVATIONS, Family
from ..fields import Fields
from ..parts import KEY, PRE_NORM, block_maker, layer_norm, layers, part_of
from ..placement import Placement, linear, norm


def build(fields: Fields, names: Set[str]) -> LanguageModel:
    fields.allow("scale_attn_weights", True)
    fields.allow("scale_attn_by_inverse_layer_idx", False)
    fields.allow("add_cross_attention", False)
    fields.allow("tie_word_embeddings", True)
    width, eps = fields.get("n_embd"), fields.get("layer_norm_epsilon", 1e-5)
    hidden = fields.get("n_inner", None) or 4 * width
    activation = fields.choose("activation_function", ACTIVATIONS, "gelu_new")

    block = block_maker(
        width,
        fields.get("n_head"),
        hidden,
        activation,
        normalization=lambda: layer_norm(width, eps),
        causal=True,
    )
    return LanguageModel(
        fields.get("vocab_size"),
        fields.get("n_positions", 1024),
        width,
        control=layers(block, fields.get("n_layer")),
        constraint=Free(),
        discretization=PRE_NORM,
        output_normalization=layer_norm(width, eps),
        key=KEY,
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield Placement(model.embedding, "wte.weight")
    yield Placement(model.positions, "wpe.weight")
    width = model.embedding.shape[1]
    layer = "h.{layer}"
    for index, part in enumerate((attention.query, attention.key, attention.value)):
        rows = part_of(index, width)
        yield from linear(part, f"{layer}.attn.c_attn", transposed=False, rows=rows)
    yield from linear(attention.output, f"{layer}.attn.c_proj", transposed=False)
    yield from linear(feed_forward.inner, f"{layer}.mlp.c_fc", transposed=False)
    yield from linear(feed_forward.outer, f"{layer}.mlp.c_proj", transposed=False)
    yield from norm(attention.normalization, f"{layer}.ln_1")
    yield from norm(feed_forward.normalization, f"{layer}.ln_2")
    yield from norm(model.output_normalization, "ln_f")


FAMILIES = {
    "gpt2": Family(
        build,
        table,
        prefix="transformer.",
        ignored=r"h\.\d+\.attn\.(masked_)?bias|lm_head\.weight",
    )
}
