"""Tokens per second of generation: with a cache, without one, and by transformers."""

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .shared.command import Command, Rounds, Rows
from .shared.timing import alternate
from .with_torch.ours import OwnGeneration, full_float32, load_llama, write_llama
from .with_torch.processes import PairedProcess


def decode(
    path: str, rounds: Rounds, *, prompt: int = 1, length: int = 128, batch: int = 1
) -> Rows:
    """The most likely `length` tokens after a prompt, drawn without a cache, with one, and by
    the cached `generate` of transformers on the same weights, in PyTorch in a process of its
    own, if it is installed. They take turns; everything is compiled ahead. Products are made
    in full float32 everywhere.

    Rows of `Timing` with `name`, `weights`, `batch`; `tokens_per_second`; `same_tokens`, the
    fraction that is as in the first row.
    """
    model, weights = load_llama(path)
    shape = batch, prompt
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.inputs.vocabulary)
    with full_float32(), contextlib.ExitStack() as stack:
        calls: dict[str, Callable[[str], Any]] = {
            "without a cache": OwnGeneration(model, tokens, length, cached=False).call,
            "with a cache": OwnGeneration(model, tokens, length, cached=True).call,
        }
        if all(map(importlib.util.find_spec, ("torch", "transformers"))):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            write_llama(model, Path(folder))
            given = make_torch_generation, folder, np.asarray(tokens), length
            calls["transformers, cached"] = stack.enter_context(PairedProcess(*given)).call
        texts = {name: call("text") for name, call in calls.items()}
        timings = alternate(
            {name: lambda call=call: call("turn") for name, call in calls.items()},
            **rounds._asdict(),
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


def make_torch_generation(*arguments: Any) -> Any:
    """A `TorchGeneration`; PyTorch is imported only where it is made."""
    from .with_torch.generation import TorchGeneration

    return TorchGeneration(*arguments)


COMMAND = Command(
    name="decode",
    about="tokens per second of generation in full float32, with a cache, without, and by "
    "transformers, of a checkpoint; tokens of a prompt, tokens to write, texts at once",
    example="glassllm --batch 8 --json decode.json",
    rounds=7,
    measure=lambda options, rounds: decode(
        options.path, rounds, prompt=options.prompt, length=options.length, batch=options.batch
    ),
    options=dict(path="glassllm", prompt=1, length=128, batch=1),
)
