"""Tokens per second of generation: with a cache, without one, and by transformers."""

import argparse
import contextlib
import functools as ft
import importlib.util
import tempfile

import jax
import numpy as np

from ide_transformer.pretrained import save_pretrained

from .shared.command import Command
from .shared.timing import Rounds, Rows, alternate
from .with_torch.ours import OwnGeneration, full_float32, load_llama
from .with_torch.processes import PairedProcess, caller


def decode(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """Tokens per second of generation in full float32 with a checkpoint, with a cache, without,
    and by transformers, if it is installed. Options are the checkpoint, the tokens of a prompt,
    those to write, and texts at once. Rows of `alternate` with `weights`, `batch`,
    `tokens_per_second`, and `same_tokens`, the fraction that is as in the first row."""
    length, batch = options.length, options.batch
    model, weights = load_llama(options.path)
    shape = batch, options.prompt
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.inputs.vocabulary)
    with full_float32(), contextlib.ExitStack() as stack:
        calls = {
            name: caller(OwnGeneration(model, tokens, length, cached=cached))
            for name, cached in (("without a cache", False), ("with a cache", True))
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
    example="glassllm --batch 8 --json decode.json",
    rounds=7,
    measure=decode,
    options=dict(path="glassllm", prompt=1, length=128, batch=1),
)
