"""Tokens per second of generation: with a cache, without one, and that of transformers."""

import functools as ft
import importlib.util
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ..errors import InputError
from ..models import LanguageModel
from ..models.generate import Draw, write
from ..pretrained import load_pretrained
from ..pretrained.fields import Fields
from ..pretrained.llama import FAMILIES
from ..pretrained.placement import tensors_of
from ..pretrained.tensor_files import write_tensors


def decode(
    path: str = "glassllm",
    *,
    prompt: int = 1,
    length: int = 128,
    batch: int = 1,
    rounds: int = 7,
) -> list[dict[str, Any]]:
    """The most likely `length` tokens after a prompt, drawn with a cache, without one, and by
    the cached `generate` of transformers on the same weights, in PyTorch in a process of its
    own, if it is installed. They take turns; everything is compiled ahead.

    **Arguments:**

    - `path`: a checkpoint of a Llama without biases, as of `load_pretrained`. Where glassllm
      cannot be fetched, random weights of its size take its place.
    - `prompt`: tokens of each prompt, random ones.
    - `batch`: prompts at once.
    - `rounds`: how often each writes its text.

    **Returns:** for each way a row: `name`, `weights`, `batch`, `tokens_per_second`, the median
    over rounds; `spread`, the range of the middle half divided by the median; `ratio`, the
    median over rounds of tokens per second divided by those of the first row in the same round;
    `same_tokens`, the fraction that is as in the first row.
    """
    model, weights = _model(path)
    tokens = jax.random.randint(
        jax.random.key(1), (batch, prompt), 0, model.embedding.shape[0], dtype=jnp.int32
    )
    ways: dict[str, Callable[[], np.ndarray]] = {
        "without a cache": ft.partial(_written, model, tokens, length, 0),
        "with a cache": ft.partial(_written, model, tokens, length, length),
    }
    if not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        return _rows(ways, weights, batch, length, rounds)
    # PyTorch and JAX disturb each other's threads within one process.
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, spawn) as other:
        _write_llama(model, Path(folder))
        ways["transformers, with a cache"] = lambda: other.submit(
            _by_transformers, folder, np.asarray(tokens, np.int64), length
        ).result()
        return _rows(ways, weights, batch, length, rounds)


def _rows(
    ways: Mapping[str, Callable[[], np.ndarray]],
    weights: str,
    batch: int,
    length: int,
    rounds: int,
) -> list[dict[str, Any]]:
    texts = {name: run() for name, run in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    first = next(iter(ways))
    rows = []
    for name, taken in seconds.items():
        low, median, high = statistics.quantiles(taken, n=4, method="inclusive")
        ratios = [a / b for a, b in zip(seconds[first], taken, strict=True)]
        rows.append(
            {
                "name": name,
                "weights": weights,
                "batch": batch,
                "tokens_per_second": batch * length / median,
                "spread": (high - low) / median,
                "ratio": statistics.median(ratios),
                "same_tokens": float(np.mean(texts[name] == texts[first])),
            }
        )
    return rows


@eqx.filter_jit
def _text(model: LanguageModel, tokens: Array, length: int, of_cache: int) -> Array:
    key, end = jax.random.key(0), tokens.shape[-1]
    return write(model, tokens, end, length, key, Draw(temperature=0.0), of_cache=of_cache)


def _written(
    model: LanguageModel, tokens: Int[Array, "batch prompt"], length: int, of_cache: int
) -> np.ndarray:
    return np.asarray(_text(model, tokens, length, of_cache))


@ft.cache
def _reference(folder: str) -> Any:
    import torch
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _by_transformers(folder: str, tokens: np.ndarray, length: int) -> np.ndarray:
    import torch

    with torch.inference_mode():
        text = _reference(folder).generate(
            torch.from_numpy(tokens),
            attention_mask=torch.ones(tokens.shape, dtype=torch.long),
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=False,
            use_cache=True,
        )
    return text.numpy()


def _model(path: str) -> tuple[LanguageModel, str]:
    weights = path
    try:
        model = load_pretrained(path, dtype=jnp.float32)
    except InputError:
        if path != "glassllm":
            raise
        model = FAMILIES["llama"].build(Fields(_GLASSLLM, Path(path)), frozenset())
        weights = "random, of the size of glassllm"
    if not isinstance(model, LanguageModel):
        raise InputError(f"{path} holds a {type(model).__name__}, which writes no text.")
    return model, weights


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


def _write_llama(model: Any, folder: Path) -> None:
    """The weights in the layout that transformers reads."""
    attention, feed_forward = model.control.blocks
    config = dict(
        architectures=["LlamaForCausalLM"],
        model_type="llama",
        vocab_size=model.embedding.shape[0],
        hidden_size=model.embedding.shape[1],
        intermediate_size=feed_forward.inner.weight.shape[-1],
        num_hidden_layers=model.control.num_intervals,
        num_attention_heads=attention.heads,
        num_key_value_heads=attention.key_value_heads,
        head_dim=attention.query.weight.shape[-1] // attention.heads,
        max_position_embeddings=model.context,
        rope_theta=attention.positions.base,
        rms_norm_eps=model.output_normalization.eps,
        tie_word_embeddings=model.readout is None,
        # Ends of text would end it early.
        eos_token_id=None,
        bos_token_id=None,
    )
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = tensors_of(FAMILIES["llama"].table(model))
    write_tensors(folder, {f"model.{name}": x for name, x in tensors.items()})
