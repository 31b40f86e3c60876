"""A small Llama, and its checkpoint for transformers."""

import json
from pathlib import Path
from typing import cast

import jax.numpy as jnp

from ide_transformer.equation import RMSNorm
from ide_transformer.errors import InputError
from ide_transformer.models import LanguageModel, Model, TextInputs, TokenLogits, is_built_as
from ide_transformer.pretrained import (
    Options,
    families,
    load_pretrained,
    tensors_of,
    write_tensors,
)


_GLASSLLM = dict(
    model_type="llama",
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=341,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=True,
)


def load_llama(path: str) -> tuple[Model[TextInputs, TokenLogits], str]:
    """A Llama, and what its weights are: those of a checkpoint, or random ones of the size of
    glassllm where that cannot be fetched."""
    weights = path
    try:
        model = load_pretrained(path, dtype=jnp.float32)
    except InputError:
        if path != "glassllm":
            raise
        model = families()["llama"].build(Options(_GLASSLLM, Path(path)), frozenset())
        weights = "random, of the size of glassllm"
    if not is_built_as(model, LanguageModel):
        raise InputError(
            f"{path} holds a model of {type(model.read_out).__name__}, which writes no text."
        )
    return model, weights


def write_llama(model: Model[TextInputs, TokenLogits], folder: Path) -> None:
    """The weights in the layout that transformers reads."""
    attention, feed_forward = model.control.intervals()
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=model.inputs.vocabulary,
        hidden_size=model.features,
        intermediate_size=feed_forward.inner.weight.shape[-1],
        num_hidden_layers=model.control.num_intervals,
        num_attention_heads=attention.heads,
        num_key_value_heads=attention.key_value_heads,
        head_dim=attention.query.weight.shape[-1] // attention.heads,
        max_position_embeddings=model.inputs.context,
        rope_theta=attention.positions.base,
        rms_norm_eps=cast(RMSNorm, model.read_out.normalization).eps,
        tie_word_embeddings=model.read_out.weight is None,
        # Ends of text would end it early.
        eos_token_id=None,
        bos_token_id=None,
    )
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = tensors_of(families()["llama"].table(model))
    write_tensors(folder, {f"model.{name}": x for name, x in tensors.items()})
