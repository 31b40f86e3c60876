"""Tokens per second of generation: with a cache, without one, and by transformers."""

import argparse
import contextlib
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .shared.command import Command, Rounds, Rows, positive
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

    **Arguments:**

    - `path`: a checkpoint of a Llama without biases; see `load_pretrained`. Where glassllm
      cannot be fetched, random weights of its size take its place.
    - `prompt`: tokens of each prompt, random ones.
    - `batch`: prompts at once.
    """
    model, weights = load_llama(path)
    shape = batch, prompt
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.inputs.vocabulary)
    with full_float32(), contextlib.ExitStack() as stack:
        calls: dict[str, Callable[[str], Any]] = {
            "without a cache": OwnGeneration(model, tokens, length, cached=0).call,
            "with a cache": OwnGeneration(model, tokens, length, cached=length).call,
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


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", default="glassllm", help="a checkpoint")
    parser.add_argument("--prompt", type=positive, default=1, help="tokens of a prompt")
    parser.add_argument("--length", type=positive, default=128, help="tokens to write")
    parser.add_argument("--batch", type=positive, default=1, help="texts at once")


def _measure(arguments: argparse.Namespace, rounds: Rounds) -> Rows:
    sizes = dict(prompt=arguments.prompt, length=arguments.length, batch=arguments.batch)
    return decode(arguments.path, rounds, **sizes)


COMMAND = Command(
    name="decode",
    about="tokens per second of generation in full float32, with a cache, without, and by "
    "transformers",
    example="glassllm --batch 8 --json decode.json",
    rounds=7,
    add_arguments=_add_arguments,
    measure=_measure,
)
