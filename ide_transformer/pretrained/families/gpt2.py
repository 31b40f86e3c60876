"""GPT-2 (Radford et al., 2019): pre-norm, learned positions; Conv1D stores `[in, out]`."""

import functools as ft
from collections.abc import Iterator, Set

from ...equation import Attention, FeedForward
from ...models import LanguageModel
from ..builders import any_key, layer_norm, pre_norm
from ..family import ACTIVATIONS, Family
from ..options import Options
from ..placement import Placement, block, linear, norm
from ..rows import part_rows


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    options.allow("scale_attn_weights", True)
    options.allow("scale_attn_by_inverse_layer_idx", False)
    options.allow("add_cross_attention", False)
    options.allow("tie_word_embeddings", True)
    width = options.get("n_embd")
    hidden = options.get("n_inner", None) or 4 * width
    activation = options.choose("activation_function", ACTIVATIONS, "gelu_new")
    normalization = layer_norm(width, options.get("layer_norm_epsilon", 1e-5))
    return LanguageModel(
        options.get("vocab_size"),
        options.get("n_positions", 1024),
        width,
        **pre_norm(
            options.get("n_layer"),
            ft.partial(
                Attention,
                width,
                options.get("n_head"),
                causal=True,
                normalization=normalization,
            ),
            ft.partial(
                FeedForward, width, hidden, activation=activation, normalization=normalization
            ),
        ),
        output_normalization=normalization,
        key=any_key(),
    )


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    yield Placement(model.embedding, "wte.weight")
    yield Placement(model.positions, "wpe.weight")
    layer = "h.{layer}"
    for index, part in enumerate((attention.query, attention.key, attention.value)):
        rows = part_rows(index, model.features)
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
