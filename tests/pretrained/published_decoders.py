"""The options of well-known decoders as their `config.json` has them, and their numbers of
parameters."""

from typing import Any


_GPT2 = dict(
    activation_function="gelu_new",
    architectures=["GPT2LMHeadModel"],
    attn_pdrop=0.1,
    bos_token_id=50256,
    embd_pdrop=0.1,
    eos_token_id=50256,
    initializer_range=0.02,
    layer_norm_epsilon=1e-05,
    model_type="gpt2",
    n_ctx=1024,
    n_embd=768,
    n_head=12,
    n_layer=12,
    n_positions=1024,
    resid_pdrop=0.1,
    summary_activation=None,
    summary_first_dropout=0.1,
    summary_proj_to_labels=True,
    summary_type="cls_index",
    summary_use_proj=True,
    task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}},
    vocab_size=50257,
)
_PYTHIA = dict(
    architectures=["GPTNeoXForCausalLM"],
    bos_token_id=0,
    eos_token_id=0,
    hidden_act="gelu",
    hidden_size=768,
    initializer_range=0.02,
    intermediate_size=3072,
    layer_norm_eps=1e-05,
    max_position_embeddings=2048,
    model_type="gpt_neox",
    num_attention_heads=12,
    num_hidden_layers=12,
    rotary_emb_base=10000,
    rotary_pct=0.25,
    tie_word_embeddings=False,
    torch_dtype="float16",
    transformers_version="4.24.0",
    use_cache=True,
    use_parallel_residual=True,
    vocab_size=50304,
)

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "gpt2": (_GPT2, 124_439_808),
    "gpt2-medium": (
        _GPT2
        | dict(n_embd=1024, n_head=16, n_layer=24, n_special=0, predict_special_tokens=True),
        354_823_168,
    ),
    "distilgpt2": (
        _GPT2
        | dict(_num_labels=1, n_layer=6, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0}),
        81_912_576,
    ),
    "gpt-j-6b": (
        {name: value for name, value in _GPT2.items() if name != "n_ctx"}
        | dict(
            architectures=["GPTJForCausalLM"],
            attn_pdrop=0.0,
            embd_pdrop=0.0,
            gradient_checkpointing=False,
            model_type="gptj",
            n_embd=4096,
            n_head=16,
            n_inner=None,
            n_layer=28,
            n_positions=2048,
            resid_pdrop=0.0,
            rotary=True,
            rotary_dim=64,
            scale_attn_weights=True,
            tie_word_embeddings=False,
            tokenizer_class="GPT2Tokenizer",
            transformers_version="4.18.0.dev0",
            use_cache=True,
            vocab_size=50400,
        ),
        6_050_882_784,
    ),
    "pythia-160m": (_PYTHIA, 162_322_944),
    "gpt-neox-20b": (
        _PYTHIA
        | dict(
            attention_probs_dropout_prob=0,
            hidden_act="gelu_fast",
            hidden_dropout_prob=0,
            hidden_size=6144,
            intermediate_size=24576,
            num_attention_heads=64,
            num_hidden_layers=44,
            vocab_size=50432,
        ),
        20_554_567_680,
    ),
}
