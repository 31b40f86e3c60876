"""A whole training step of this package against the equal model in PyTorch."""

import argparse
import contextlib
import functools as ft

import numpy as np

from ide_transformer.packages import require

from .shared.command import Command
from .shared.timing import Rounds, Rows, alternate
from .with_torch.ours import SETTINGS, OwnTraining, Setting, full_float32, utilisation
from .with_torch.processes import PairedProcess, caller


def against_torch(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """Training steps in full float32 against the equal model in PyTorch, eager and compiled.
    They begin with the same weights and take the same batches; PyTorch runs in processes of its
    own, one at a time. Options are the steps in a turn, and those whose losses are compared.

    Rows of `alternate` with `setting`, `tokens_per_second`; `mebibytes`, the memory of a
    step without weights and moments: temporary memory of the program here, the rise of the
    resident memory of its process in PyTorch; `loss` of the last step of the curve, and
    `loss_difference`, the largest relative difference of the curve from the first row's;
    `utilisation` of the arithmetic on an accelerator.
    """
    require("torch", "reference", "Training is compared with")
    names = options.setting or ("small", "medium")
    return [row for name in names for row in _compared(SETTINGS[name], options, rounds)]


def _compared(setting: Setting, options: argparse.Namespace, rounds: Rounds) -> Rows:
    with full_float32(), contextlib.ExitStack() as stack:
        ours = OwnTraining(setting)
        given = (
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates()),
        )
        calls = {}
        for name, compiled in (("torch eager", False), ("torch.compile", True)):
            theirs = PairedProcess("theirs:TorchTraining", *given, compiled)
            calls[name] = stack.enter_context(theirs).call
        calls["ide_transformer"] = caller(ours)
        curves = {name: np.array(call("losses", options.curve)) for name, call in calls.items()}
        mebibytes = {name: call("peak_mebibytes") for name, call in calls.items()}
        turns = {name: ft.partial(call, "turn", options.steps) for name, call in calls.items()}
        rows = alternate(turns, rounds, setting=str(setting))
    for row in rows:
        losses, seconds = curves[row["name"]], row["milliseconds"] / 1e3
        row |= {
            "tokens_per_second": setting.tokens / seconds,
            "mebibytes": mebibytes[row["name"]],
            "loss": float(losses[-1]),
            "loss_difference": float(np.max(np.abs(losses / curves["torch eager"] - 1))),
            "utilisation": utilisation(setting.model_flops, seconds),
        }
    return rows


COMMAND = Command(
    name="torch",
    example="--setting small --json torch.json --figure torch.png",
    rounds=20,
    measure=against_torch,
    options=dict(setting=tuple(SETTINGS), steps=10, curve=50),
)
