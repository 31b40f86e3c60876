"""Tokens per second of generation: with a cache, without one, and by transformers."""

import contextlib
import functools as ft
import importlib.util
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ide_transformer.pretrained import save_pretrained

from .shared.command import Command
from .shared.timing import Rounds, Rows, alternate
from .with_torch.ours import OwnGeneration, full_float32, load_llama
from .with_torch.processes import PairedProcess


def decode(
    path: str, rounds: Rounds, *, prompt: int = 1, length: int = 128, batch: int = 1
) -> Rows:
    """The most likely `length` tokens after a prompt, drawn without a cache, with one, and by
    the cached `generate` of transformers on the same weights, in PyTorch in a process of its
    own, if it is installed. They take turns; everything is compiled ahead. Products are made
    in full float32 everywhere.

    Rows of `alternate` with `weights`, `batch`; `tokens_per_second`; `same_tokens`, the
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
            save_pretrained(model, folder)
            given = "generation:TorchGeneration", folder, np.asarray(tokens), length
            calls["transformers, cached"] = stack.enter_context(PairedProcess(*given)).call
        texts = {name: call("text") for name, call in calls.items()}
        turns = {name: ft.partial(call, "turn") for name, call in calls.items()}
        rows = alternate(turns, rounds, weights=weights, batch=batch)
    for row in rows:
        row["tokens_per_second"] = 1e3 * batch * length / row["milliseconds"]
        same = texts[row["name"]] == texts["without a cache"]
        row["same_tokens"] = float(np.mean(same))
    return rows


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
