"""Training steps in full float32 against the equal model in PyTorch, eager and compiled.

Both begin with the same weights and take the same batches. PyTorch runs in other processes, one
at a time. Returns the rows of `alternate` with `setting`, `tokens_per_second`, the last `loss`,
and the largest relative `loss_difference` from the losses of the first row.
"""

import argparse
import contextlib
import functools as ft

import jax
import numpy as np

from ide_transformer.packages import require

from .shared.timing import Rounds, Rows, alternate
from .with_torch.ours import SETTINGS, OwnTraining, Setting
from .with_torch.processes import PairedProcess, caller


EXAMPLE = "--setting small --json torch.json"
ROUNDS = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--setting", action="append", choices=tuple(SETTINGS))
    parser.add_argument("--steps", type=int, default=10, help="in a turn (default: 10)")
    parser.add_argument("--curve", type=int, default=50, help="losses compared (default: 50)")


def measure(options: argparse.Namespace, rounds: Rounds) -> Rows:
    require("torch", "reference", "Training is compared with")
    names = options.setting or ("small", "medium")
    return [row for name in names for row in _compare_setting(SETTINGS[name], options, rounds)]


def _compare_setting(setting: Setting, options: argparse.Namespace, rounds: Rounds) -> Rows:
    # PyTorch does not round factors of float32 either.
    full_float32 = jax.default_matmul_precision("float32")
    with full_float32, contextlib.ExitStack() as stack:
        ours = OwnTraining(setting)
        arguments = (
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates()),
        )
        calls = {}
        for name, compiled in (("torch eager", False), ("torch.compile", True)):
            theirs = PairedProcess("theirs:TorchTraining", *arguments, compiled)
            calls[name] = stack.enter_context(theirs).call
        calls["ide_transformer"] = caller(ours)
        curves = {name: np.array(call("losses", options.curve)) for name, call in calls.items()}
        turns = {name: ft.partial(call, "turn", options.steps) for name, call in calls.items()}
        rows = alternate(turns, rounds, setting=str(setting))
    for row in rows:
        losses = curves[row["name"]]
        row |= {
            "tokens_per_second": 1e3 * setting.batch * setting.context / row["milliseconds"],
            "loss": float(losses[-1]),
            "loss_difference": float(np.max(np.abs(losses / curves["torch eager"] - 1))),
        }
    return rows
