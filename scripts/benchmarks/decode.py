"""Tokens per second of generation: with a cache, without one, and that of transformers."""

import contextlib
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ide_transformer.errors import InputError
from ide_transformer.models import LanguageModel
from ide_transformer.models.generate import Draw, write
from ide_transformer.pretrained import (
    Options,
    families,
    load_pretrained,
    tensors_of,
    write_tensors,
)
from ide_transformer.reporting import alternate

from .paired import PairedProcess


def decode(
    path: str = "glassllm",
    *,
    prompt: int = 1,
    length: int = 128,
    batch: int = 1,
    rounds: int = 7,
    on_round: Callable[[int], Any] = lambda done: None,
) -> list[dict[str, Any]]:
    """The most likely `length` tokens after a prompt, drawn without a cache, with one, and by
    the cached `generate` of transformers on the same weights, in PyTorch in a process of its
    own, if it is installed. They take turns; everything is compiled ahead.

    Rows of `Timing` with `name`, `weights`, `batch`; `tokens_per_second`; `same_tokens`, the
    fraction that is as in the first row.

    **Arguments:**

    - `path`: a checkpoint of a Llama without biases, as of `load_pretrained`. Where glassllm
      cannot be fetched, random weights of its size take its place.
    - `prompt`: tokens of each prompt, random ones.
    - `batch`: prompts at once.
    - `rounds`, `on_round`: as of `alternate`.
    """
    model, weights = _model(path)
    shape = batch, prompt
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.embedding.shape[0])
    with contextlib.ExitStack() as stack:
        calls: dict[str, Callable[[str], Any]] = {
            "without a cache": OwnGeneration(model, tokens, length, cached_tokens=0).call,
            "with a cache": OwnGeneration(model, tokens, length, cached_tokens=length).call,
        }
        if all(map(importlib.util.find_spec, ("torch", "transformers"))):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            _write_llama(model, Path(folder))
            given = make_torch_generation, folder, np.asarray(tokens), length
            calls["transformers, cached"] = stack.enter_context(PairedProcess(*given)).call
        texts = {name: call("text") for name, call in calls.items()}
        timings = alternate(
            {name: lambda call=call: call("turn") for name, call in calls.items()},
            rounds=rounds,
            on_round=on_round,
        )
    first = texts["without a cache"]
    return [
        {
            "name": name,
            "weights": weights,
            "batch": batch,
            **timing._asdict(),
            "tokens_per_second": 1e3 * batch * length / timing.milliseconds,
            "same_tokens": float(np.mean(texts[name] == first)),
        }
        for name, timing in timings.items()
    ]


class OwnGeneration:
    """Greedy generation here, with the methods of `TorchGeneration`.

    **Arguments:**

    - `tokens`: of the prompts.
    - `length`: tokens to write.
    - `cached_tokens`: see `write`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: Int[Array, "batch prompt"],
        length: int,
        *,
        cached_tokens: int,
    ):
        self._model, self._tokens = model, tokens

        @eqx.filter_jit
        def written(model: LanguageModel, tokens: Array) -> Array:
            key, end = jax.random.key(0), tokens.shape[-1]
            draw = Draw(temperature=0.0)
            return write(model, tokens, end, length, key, draw, cached_tokens=cached_tokens)

        self._written = written

    def text(self) -> np.ndarray:
        """The prompts and what follows them."""
        return np.asarray(self._written(self._model, self._tokens))

    def turn(self) -> float:
        """Seconds to write it."""
        began = time.perf_counter()
        self.text()
        return time.perf_counter() - began

    def call(self, method: str) -> Any:
        """As of `PairedProcess`."""
        return getattr(self, method)()


def make_torch_generation(*arguments: Any) -> Any:
    """A `TorchGeneration`; PyTorch is imported only where it is made."""
    from .torch_generation import TorchGeneration

    return TorchGeneration(*arguments)


def _model(path: str) -> tuple[LanguageModel, str]:
    weights = path
    try:
        model = load_pretrained(path, dtype=jnp.float32)
    except InputError:
        if path != "glassllm":
            raise
        model = families()["llama"].build(Options(_GLASSLLM, Path(path)), frozenset())
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
    tensors = tensors_of(families()["llama"].table(model))
    write_tensors(folder, {f"model.{name}": x for name, x in tensors.items()})
