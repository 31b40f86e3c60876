"""Small checkpoints of every family: classes of transformers and their options.

Those without a comma in their name are the golden checkpoints of this folder, which `make.py`
writes; the others are variants, which the heavy tests make.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


GOLDEN = Path(__file__).parent
REMOVED = object()


class Case(NamedTuple):
    """A class of transformers and the options of its checkpoint.

    - `only`: of a variant, the options that make a difference to it.
    - `older`: other options in the file, where older files differ.
    """

    model: str
    options: dict[str, Any]
    only: str = ""
    older: Mapping[str, Any] = {}

    def but(self, model: str = "", **changes: Any) -> "Case":
        """A variant of another class or with other options, which are not changed one by one
        but for `only`."""
        case_options = {x: changes.pop(x) for x in ("only", "older") if x in changes}
        case_options = {"only": "nothing"} | case_options
        return Case(model or self.model, self.options | changes, **case_options)


_SIZES = dict(vocab_size=61, hidden_size=16, intermediate_size=24)
_SIZES |= dict(num_hidden_layers=2, num_attention_heads=4)
_BERT = _SIZES | dict(max_position_embeddings=24)
_NEOX = _SIZES | dict(max_position_embeddings=64)
_LLAMA = _NEOX | dict(num_key_value_heads=2)
_GPT2 = dict(vocab_size=61, n_positions=24, n_embd=16, n_layer=2, n_head=4)
_DISTILBERT = dict(vocab_size=61, dim=16, hidden_dim=24, n_layers=2, n_heads=4)
_T5 = dict(vocab_size=61, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=4)
_IMAGE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, patch_size=4)
_IMAGE |= dict(image_size=8, num_labels=3)
_VIT = _IMAGE | dict(intermediate_size=12)
# Two stages, of the second of which the keys are not coarser.
_CVT: Any = dict(embed_dim=[4, 8], num_heads=[2, 2], depth=[1, 2], mlp_ratio=[2.0, 1.5])
_CVT |= dict(patch_sizes=[5, 3], patch_stride=[2, 2], patch_padding=[2, 1], stride_kv=[2, 1])
_CVT |= dict(cls_token=[False, True], qkv_bias=[True] * 2, kernel_qkv=[3] * 2, num_labels=3)
_CVT |= dict.fromkeys(("padding_q", "padding_kv", "stride_q"), [1] * 2)
_CVT |= dict.fromkeys(("attention_drop_rate", "drop_rate", "drop_path_rate"), [0.0] * 2)
_CVT |= dict(qkv_projection_method=["dw_bn"] * 2)
# What the library takes where a file does not say otherwise has three stages.
_CVT3: Any = dict(embed_dim=[8, 12, 16], num_heads=[1, 3, 2], depth=[1, 2, 3], num_labels=5)
_CVT3 |= dict(cls_token=[False] * 3, qkv_bias=[True, False, True], stride_kv=[2, 1, 2])

CASES = {
    "gpt2": Case("GPT2LMHeadModel", _GPT2),
    "gptj": Case("GPTJForCausalLM", _GPT2 | dict(rotary_dim=2)),
    "gpt_neox": Case("GPTNeoXForCausalLM", _NEOX | dict(rotary_pct=0.5)),
    "llama": Case("LlamaForCausalLM", _LLAMA),
    "mistral": Case("MistralForCausalLM", _LLAMA | dict(sliding_window=4)),
    "qwen2": Case("Qwen2ForCausalLM", _LLAMA),
    "qwen3": Case("Qwen3ForCausalLM", _LLAMA | dict(head_dim=8)),
    "gemma": Case("GemmaForCausalLM", _LLAMA | dict(head_dim=8, num_key_value_heads=1)),
    "bert": Case("BertForMaskedLM", _BERT),
    "roberta": Case("RobertaForMaskedLM", _BERT | dict(type_vocab_size=1)),
    "distilbert": Case("DistilBertForMaskedLM", _DISTILBERT | dict(max_position_embeddings=24)),
    "albert": Case("AlbertForMaskedLM", _BERT | dict(embedding_size=8)),
    "t5": Case(
        "T5EncoderModel",
        _T5 | dict(relative_attention_num_buckets=8, relative_attention_max_distance=10),
    ),
    "vit": Case("ViTForImageClassification", _VIT),
    "deit": Case("DeiTForImageClassificationWithTeacher", _VIT),
    "dinov2": Case(
        "Dinov2ForImageClassification", _IMAGE | dict(mlp_ratio=2, use_swiglu_ffn=True)
    ),
    "cvt": Case("CvtForImageClassification", _CVT),
}

_ROPE = "rope_parameters rope_scaling rope_theta partial_rotary_factor"
_LINEAR = dict(rope_parameters=REMOVED, rope_scaling=dict(type="linear", factor=2.0))
_LLAMA3: Any = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0)
_LLAMA3 |= dict(high_freq_factor=4.0, original_max_position_embeddings=16)
_BIASES = dict(attention_bias=True, mlp_bias=True)
_WINDOW = dict(use_sliding_window=True, sliding_window=4)
_OLDER_WINDOW = _WINDOW | dict(layer_types=REMOVED, max_window_layers=0)
_WINDOWS = "use_sliding_window sliding_window max_window_layers layer_types num_hidden_layers"
_KERNELS: Any = dict(num_channels=1, patch_padding=[1, 1], kernel_qkv=[1, 5])
_KERNELS |= dict(padding_q=[0, 2], padding_kv=[0, 2], patch_sizes=[3, 3])

CASES |= {
    "gpt_neox, older and in sequence": CASES["gpt_neox"].but(
        use_parallel_residual=False,
        attention_bias=False,
        older=_LINEAR | dict(rotary_pct=0.5, rotary_emb_base=500.0),
        only=f"rotary_pct rotary_emb_base {_ROPE}",
    ),
    "llama, newer and with biases": CASES["llama"].but(
        **_BIASES,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        rope_parameters=_LLAMA3,
        only=_ROPE,
    ),
    "qwen2, older": CASES["qwen2"].but(older=_OLDER_WINDOW, only=_WINDOWS),
    "bert, two heads": CASES["bert"].but("BertForPreTraining"),
    "t5, gated": CASES["t5"].but(
        feed_forward_proj="gated-gelu",
        only="feed_forward_proj is_gated_act dense_act_fn tie_word_embeddings",
    ),
    "vit, pooler": CASES["vit"].but(
        "ViTModel",
        image_size=[4, 12],
        qkv_bias=False,
        pooler_output_size=10,
        only="num_labels pooler_act pooler_output_size",
    ),
    "dinov2, not gated": CASES["dinov2"].but(
        use_swiglu_ffn=False,
        use_mask_token=False,
        hidden_act="relu",
        only="use_swiglu_ffn hidden_act mlp_ratio",
    ),
    "cvt, states": CASES["cvt"].but("CvtModel", **_KERNELS),
    "cvt, mean": Case("CvtForImageClassification", _CVT3, only="nothing"),
}

# Families of which the library computes the softmax, or angles and normalisations, in single
# precision, and how much that changes the outputs.
IN_FLOAT32 = dict.fromkeys(("gemma", "gpt_neox", "gptj", "llama", "mistral"), 1e-6)
IN_FLOAT32 |= dict(qwen2=1e-6, qwen3=1e-6, t5=1e-5)


def inputs_of(name: str) -> dict[str, np.ndarray]:
    """The inputs of a case: images, or texts with padding before, after and inside them."""
    options, random = CASES[name].options, np.random.default_rng(0)
    if "patch_size" in options or "embed_dim" in options:
        size = options.get("image_size", 8 if len(options.get("depth", "")) != 3 else [32, 64])
        size = size if isinstance(size, list) else [size, size]
        return dict(images=random.normal(size=(2, *size, options.get("num_channels", 3))))
    tokens = random.integers(3, options["vocab_size"], (3, 9))
    tokens[0, :3] = tokens[1, 6:] = tokens[2, 4] = 0
    mask = np.ones(tokens.shape, bool)
    mask[0, :3] = mask[1, 6:] = False
    return dict(tokens=tokens, mask=mask, segments=random.integers(0, 2, tokens.shape))
