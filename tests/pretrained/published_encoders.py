"""The options of well-known encoders of text as their `config.json` has them, and their numbers
of parameters."""

from typing import Any


def labels(number: int) -> dict[str, Any]:
    names = {str(i): f"LABEL_{i}" for i in range(number)}
    return dict(id2label=names, label2id={name: int(i) for i, name in names.items()})


_BERT = dict(
    architectures=["BertForMaskedLM"],
    attention_probs_dropout_prob=0.1,
    hidden_act="gelu",
    hidden_dropout_prob=0.1,
    hidden_size=768,
    initializer_range=0.02,
    intermediate_size=3072,
    layer_norm_eps=1e-12,
    max_position_embeddings=512,
    model_type="bert",
    num_attention_heads=12,
    num_hidden_layers=12,
    pad_token_id=0,
    type_vocab_size=2,
    vocab_size=30522,
)
_BERT_OF_2021 = dict(
    gradient_checkpointing=False,
    position_embedding_type="absolute",
    transformers_version="4.6.0.dev0",
    use_cache=True,
)
_BERT_OF_2020 = dict(
    _num_labels=2,
    bos_token_id=None,
    do_sample=False,
    early_stopping=False,
    eos_token_ids=None,
    finetuning_task=None,
    is_decoder=False,
    is_encoder_decoder=False,
    length_penalty=1.0,
    max_length=20,
    min_length=0,
    no_repeat_ngram_size=0,
    num_beams=1,
    num_labels=2,
    num_return_sequences=1,
    output_attentions=False,
    output_hidden_states=False,
    output_past=True,
    pruned_heads={},
    repetition_penalty=1.0,
    temperature=1.0,
    top_k=50,
    top_p=1.0,
    torchscript=False,
    use_bfloat16=False,
    xla_device=None,
)
_MULTILINGUAL = dict(
    directionality="bidi",
    pooler_fc_size=768,
    pooler_num_attention_heads=12,
    pooler_num_fc_layers=3,
    pooler_size_per_head=128,
    pooler_type="first_token_transform",
    vocab_size=119547,
)
_MINILM = dict(
    _name_or_path="nreimers/MiniLM-L6-H384-uncased",
    architectures=["BertModel"],
    hidden_size=384,
    intermediate_size=1536,
    num_hidden_layers=6,
)
_ROBERTA = dict(
    architectures=["RobertaForMaskedLM"],
    bos_token_id=0,
    eos_token_id=2,
    layer_norm_eps=1e-5,
    max_position_embeddings=514,
    model_type="roberta",
    pad_token_id=1,
    type_vocab_size=1,
    vocab_size=50265,
)
_ALBERT = dict(
    architectures=["AlbertForMaskedLM"],
    attention_probs_dropout_prob=0,
    bos_token_id=2,
    classifier_dropout_prob=0.1,
    down_scale_factor=1,
    embedding_size=128,
    eos_token_id=3,
    gap_size=0,
    hidden_act="gelu_new",
    hidden_dropout_prob=0,
    inner_group_num=1,
    layers_to_keep=[],
    model_type="albert",
    net_structure_type=0,
    num_hidden_groups=1,
    num_memory_blocks=0,
    vocab_size=30000,
)
_DISTILBERT = dict(
    activation="gelu",
    architectures=["DistilBertForMaskedLM"],
    attention_dropout=0.1,
    dim=768,
    dropout=0.1,
    hidden_dim=3072,
    initializer_range=0.02,
    max_position_embeddings=512,
    model_type="distilbert",
    n_heads=12,
    n_layers=6,
    output_past=True,
    pad_token_id=0,
    qa_dropout=0.1,
    seq_classif_dropout=0.2,
    sinusoidal_pos_embds=False,
    tie_weights_=True,
    vocab_size=30522,
)
_T5 = dict(
    architectures=["T5ForConditionalGeneration"],
    d_ff=2048,
    d_kv=64,
    d_model=512,
    decoder_start_token_id=0,
    dropout_rate=0.1,
    eos_token_id=1,
    initializer_factor=1.0,
    is_encoder_decoder=True,
    layer_norm_epsilon=1e-6,
    model_type="t5",
    n_positions=512,
    num_heads=8,
    num_layers=6,
    output_past=True,
    pad_token_id=0,
    relative_attention_num_buckets=32,
    task_specific_params={"summarization": {"max_length": 200, "num_beams": 4}},
    vocab_size=32128,
)
_FLAN_T5 = dict(
    classifier_dropout=0.0,
    d_ff=1024,
    dense_act_fn="gelu_new",
    feed_forward_proj="gated-gelu",
    is_gated_act=True,
    num_decoder_layers=8,
    num_heads=6,
    num_layers=8,
    relative_attention_max_distance=128,
    tie_word_embeddings=False,
    use_cache=True,
)

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "bert-base-uncased": (_BERT | _BERT_OF_2021, 109_514_298),
    "bert-base-uncased of 2020": (_BERT | _BERT_OF_2020 | labels(2), 109_514_298),
    "bert-base-multilingual-cased": (_BERT | _MULTILINGUAL, 177_974_523),
    "all-MiniLM-L6-v2": (_BERT | _BERT_OF_2021 | _MINILM, 22_713_216),
    "roberta-base": (_BERT | _ROBERTA, 124_697_433),
    "albert-base-v2": (_BERT | _ALBERT, 11_221_680),
    "distilbert-base-uncased": (_DISTILBERT, 66_985_530),
    "t5-small": (_T5, 35_330_816),
    "flan-t5-small": (_T5 | _FLAN_T5, 35_332_800),
}
