"""A whole training step of this package against the equal model in PyTorch."""

import contextlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from ide_transformer.errors import InputError
from ide_transformer.reporting import alternate

from .accelerator import utilisation
from .own_training import OwnTraining
from .paired import PairedProcess
from .settings import Setting


def against_torch(
    setting: Setting,
    *,
    rounds: int,
    steps: int,
    curve: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> list[dict[str, Any]]:
    """Training steps with clipping and AdamW in PyTorch, eager and compiled, and here, from
    the same weights with the same batches. PyTorch runs in processes of its own; of all, one
    computes while the others are idle.

    Rows of `Timing` with `setting`, `name`, `tokens_per_second`; `mebibytes`, what a step needs
    beside weights and moments: temporary memory of the program here, the rise of the resident
    memory of its process in PyTorch; `loss` of the last step of the curve, and
    `loss_difference`, the largest relative difference of the curve from the first row's;
    `utilisation` of the arithmetic on an accelerator.

    **Arguments:**

    - `rounds`, `on_round`: as of `alternate`.
    - `steps`: in a turn.
    - `curve`: the steps whose losses are compared; they go ahead of the timing.

    **Raises:** `InputError` if PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            "torch: PyTorch, to be compared with, is not installed. Install it with\n"
            "    pip install -e '.[reference]'"
        )
    with contextlib.ExitStack() as stack:
        ours = OwnTraining(setting)
        given = (
            *(setting, ours.initial_weights, ours.batches),
            *(setting.config.optimizer, ours.learning_rates()),
        )
        calls: dict[str, Callable] = {
            name: stack.enter_context(PairedProcess(make_torch_training, *given, compiled)).call
            for name, compiled in (("torch eager", False), ("torch.compile", True))
        }
        calls["ide_transformer"] = lambda method, *a: getattr(ours, method)(*a)
        curves = {name: np.array(call("losses", curve)) for name, call in calls.items()}
        mebibytes = {name: call("peak_mebibytes") for name, call in calls.items()}
        timings = alternate(
            {n: lambda call=call: call("turn", steps) for n, call in calls.items()},
            rounds=rounds,
            on_round=on_round,
        )
    first = curves["torch eager"]
    return [
        {
            "setting": str(setting),
            "name": name,
            **timing._asdict(),
            "tokens_per_second": 1e3 * setting.tokens / timing.milliseconds,
            "mebibytes": mebibytes[name],
            "loss": float(curves[name][-1]),
            "loss_difference": float(np.max(np.abs(curves[name] / first - 1))),
            "utilisation": utilisation(setting.model_flops, timing.milliseconds / 1e3),
        }
        for name, timing in timings.items()
    ]


def make_torch_training(*arguments: Any) -> Any:
    """A `TorchTraining`; PyTorch is imported only where it is made."""
    from .torch_training import TorchTraining

    return TorchTraining(*arguments)
