"""The models of the package glassllm: a small Llama with rotary pairs that are neighbours,
`[in, out]` matrices and tied embeddings."""

from collections.abc import Iterator, Set

from ...models import LanguageModel
from ..family import Family
from ..options import Options
from ..placement import Placement, block, neighbours_to_halves
from .llama import build as build_llama, llama_attention


_SPELLINGS = dict(
    hidden_size="d_model",
    num_hidden_layers="n_layers",
    num_attention_heads="n_heads",
    num_key_value_heads="n_kv_heads",
    max_position_embeddings="max_len",
    rope_theta="rope_base",
    rms_norm_eps="eps",
)


def build(options: Options, tensors: Set[str]) -> LanguageModel:
    values = {name: options.get(name) for name in (*_SPELLINGS.values(), "vocab_size")}
    values["intermediate_size"] = int(8 * options.size("d_model") / 3)
    values["tie_word_embeddings"] = True
    llama = Options(values, options.file).renamed(**_SPELLINGS)
    return build_llama(llama, tensors, attention_options=llama_attention)


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = block(model.control)
    layer = "blocks.{layer}"
    head_features = attention.query.weight.shape[-1] // attention.heads
    for weight, heads, name in (
        (attention.query.weight, attention.heads, "W_Q"),
        (attention.key.weight, attention.key_value_heads, "W_K"),
    ):
        rows = neighbours_to_halves(heads, head_features, head_features)
        yield Placement(weight, f"{layer}.attn.{name}", rows=rows)
    for weight, name in (
        (model.embedding, "E"),
        (attention.value.weight, f"{layer}.attn.W_V"),
        (attention.output.weight, f"{layer}.attn.W_O"),
        (feed_forward.gate.weight, f"{layer}.ffn.W1"),
        (feed_forward.inner.weight, f"{layer}.ffn.W3"),
        (feed_forward.outer.weight, f"{layer}.ffn.W2"),
        (attention.normalization.gain, f"{layer}.norm1.gamma"),
        (feed_forward.normalization.gain, f"{layer}.norm2.gamma"),
        (getattr(model.output_normalization, "gain", None), "norm_f.gamma"),
    ):
        yield Placement(weight, name)


FAMILIES = {"glassllm": Family(build, table, harmless="init_std")}
