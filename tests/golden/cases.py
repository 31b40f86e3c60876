"""Small checkpoints of every family of texts, made by transformers with random weights."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


GOLDEN = Path(__file__).parent


class Case(NamedTuple):
    """A class of transformers and the options of its configuration."""

    model: str
    config: str
    options: dict[str, Any]


_BERT = dict(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=24,
)
_LLAMA = dict(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
_NEOX = {name: value for name, value in _LLAMA.items() if name != "num_key_value_heads"}
_GPT2 = dict(vocab_size=61, n_positions=24, n_embd=16, n_layer=2, n_head=4)
_T5 = dict(vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=4)
_ROPE = dict(rope_type="default", rope_theta=500.0)
_LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)

# The first of each family is its golden file.
CASES: dict[str, Case] = {
    "gpt2": Case("GPT2LMHeadModel", "GPT2Config", _GPT2),
    "gpt2, 2 heads, relu": Case(
        "GPT2LMHeadModel",
        "GPT2Config",
        _GPT2 | dict(n_head=2, n_inner=20, activation_function="relu", n_layer=3),
    ),
    "gpt2, untied": Case(
        "GPT2LMHeadModel", "GPT2Config", _GPT2 | dict(tie_word_embeddings=False)
    ),
    "llama": Case("LlamaForCausalLM", "LlamaConfig", _LLAMA),
    "llama, biases, 1 key-value head": Case(
        "LlamaForCausalLM",
        "LlamaConfig",
        _LLAMA
        | dict(
            attention_bias=True,
            mlp_bias=True,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            rope_parameters=_ROPE,
        ),
    ),
    "llama, stretched": Case(
        "LlamaForCausalLM", "LlamaConfig", _LLAMA | dict(rope_parameters=_LLAMA3)
    ),
    "llama, linear": Case(
        "LlamaForCausalLM",
        "LlamaConfig",
        _LLAMA | dict(rope_parameters=_ROPE | dict(rope_type="linear", factor=2.0)),
    ),
    "mistral": Case("MistralForCausalLM", "MistralConfig", _LLAMA | dict(sliding_window=4)),
    "mistral, no window": Case(
        "MistralForCausalLM", "MistralConfig", _LLAMA | dict(sliding_window=None)
    ),
    "qwen2": Case("Qwen2ForCausalLM", "Qwen2Config", _LLAMA),
    "qwen3": Case("Qwen3ForCausalLM", "Qwen3Config", _LLAMA | dict(head_dim=8)),
    "qwen3, window": Case(
        "Qwen3ForCausalLM",
        "Qwen3Config",
        _LLAMA
        | dict(head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=0),
    ),
    "gemma": Case(
        "GemmaForCausalLM", "GemmaConfig", _LLAMA | dict(head_dim=8, num_key_value_heads=1)
    ),
    "gpt_neox": Case("GPTNeoXForCausalLM", "GPTNeoXConfig", _NEOX | dict(rotary_pct=0.5)),
    "gpt_neox, in sequence": Case(
        "GPTNeoXForCausalLM",
        "GPTNeoXConfig",
        _NEOX | dict(use_parallel_residual=False, attention_bias=False, rotary_pct=1.0),
    ),
    "gptj": Case("GPTJForCausalLM", "GPTJConfig", _GPT2 | dict(rotary_dim=2)),
    "gptj, tied": Case(
        "GPTJForCausalLM", "GPTJConfig", _GPT2 | dict(rotary_dim=2, tie_word_embeddings=True)
    ),
    "bert": Case("BertForMaskedLM", "BertConfig", _BERT),
    "bert, pooler, relu": Case(
        "BertModel", "BertConfig", _BERT | dict(hidden_act="relu", num_attention_heads=2)
    ),
    "roberta": Case("RobertaForMaskedLM", "RobertaConfig", _BERT | dict(type_vocab_size=1)),
    "distilbert": Case(
        "DistilBertForMaskedLM",
        "DistilBertConfig",
        dict(
            vocab_size=61,
            dim=16,
            hidden_dim=24,
            n_layers=2,
            n_heads=4,
            max_position_embeddings=24,
        ),
    ),
    "albert": Case("AlbertForMaskedLM", "AlbertConfig", _BERT | dict(embedding_size=8)),
    "albert, pooler": Case(
        "AlbertModel", "AlbertConfig", _BERT | dict(embedding_size=8, num_hidden_layers=3)
    ),
    "t5": Case(
        "T5EncoderModel",
        "T5Config",
        _T5 | dict(relative_attention_num_buckets=8, relative_attention_max_distance=10),
    ),
    "t5, gated": Case("T5EncoderModel", "T5Config", _T5 | dict(feed_forward_proj="gated-gelu")),
}

# Families whose reference computes rotary angles, or the softmax, in float32.
IN_FLOAT32 = ("gemma", "gpt_neox", "gptj", "llama", "mistral", "qwen2", "qwen3", "t5")


def make_reference(name: str, folder: Path, dtype: str) -> Any:
    """The model of transformers with random weights, which it has saved to `folder`."""
    import torch
    import transformers

    case = CASES[name]
    # What generation needs means nothing for so few tokens.
    specials = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = getattr(transformers, case.config)(**case.options, **specials)
    torch.manual_seed(0)
    model = getattr(transformers, case.model)(config).to(getattr(torch, dtype)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            around = 1.0 if weight.ndim == 1 and weight.mean() > 0.5 else 0.0
            weight.copy_(around + 0.15 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return model


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Tokens, and a mask with padding at the end of the second text."""
    tokens = np.random.default_rng(0).integers(3, 61, (2, 12))
    mask = np.ones((2, 12), bool)
    mask[1, 8:] = False
    return tokens, mask


def outputs_of(reference: Any, tokens: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """The states at depth T, logits and pooled vectors, those that the model has."""
    import torch

    with torch.no_grad():
        out = reference(
            input_ids=torch.tensor(tokens),
            attention_mask=torch.tensor(mask.astype(np.int64)),
            output_hidden_states=True,
        )
    found = {"states": out.hidden_states[-1], "logits": out.get("logits")}
    found["pooled"] = out.get("pooler_output")
    return {name: x.numpy() for name, x in found.items() if x is not None}
