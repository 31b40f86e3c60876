"""The models of runs, read from their checkpoints."""

import functools as ft
from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from ..arguments import checked
from ..errors import InputError
from ..models import Model
from .averages import Weights, weights_of
from .build import build_model_of_size, build_task, causal, task_class
from .checkpoints import Checkpoints, Which
from .config import Config
from .folder import RunFolder
from .metrics import validation_losses
from .phases import make_phases, phase_at, shapes_at
from .refinement import first_model


@checked
def load_run(
    path: str | Path,
    *,
    checkpoint: Which = "newest",
    weights: Weights = "trained",
    trust: bool = False,
) -> tuple[Model, RunFolder]:
    """The trained model of a run and its folder. The folder's `load_tokenizer` gives what
    `generate` needs to write text.

    A run that is refined (`training.refine`) and was stopped on its way gives the model on the
    mesh of that step.

    **Arguments:**

    - `checkpoint`: "newest"; "best", the one with the lowest validation loss on the way (see
      `training.keep_best`); or a step. For one that is damaged the newest before it is
      taken, with a warning.
    - `weights`: "trained", or "average" for their moving average (`training.average`).

    - `trust`: whether code that its configuration names, `package.module:Class`, may be
      imported and run.

    **Raises:** `InputError` if `path` is not the folder of a run with such a checkpoint, and
    for code that is not trusted.
    """
    folder = RunFolder(path)
    return restored(folder, folder.load_config(trust), checkpoint, weights), folder


def restored(
    folder: RunFolder, config: Config, checkpoint: Which, weights: Weights = "trained"
) -> Model:
    """The model of a run with the weights of a checkpoint; see `load_run`.

    **Arguments:**

    - `config`: that of the run, or one whose model has weights of the same shapes.
    """
    average = config.training.average
    if weights == "average" and not average:
        raise InputError(
            f"weights=average: {folder.path} keeps no moving average of its weights; train it "
            "with training.average=0.999, say, or take weights=trained."
        )
    key = jax.random.key(0)  # the weights that it draws are replaced below
    sizes = run_sizes(folder, config)
    model = first_model(config, lambda config: build_model_of_size(config, sizes, key))
    _, phases = make_phases(config, model, key)
    losses = validation_losses(folder.metrics) if checkpoint == "best" else {}
    with Checkpoints(folder, config, losses, writes=False) as checkpoints:
        state = checkpoints.restore(ft.partial(shapes_at, phases), checkpoint)
    static = phase_at(phases, int(state.step)).static
    return causal(config, eqx.combine(weights_of(state, weights, average), static))


def run_sizes(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The sizes of a model that the data of a run decide."""
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    return build_task(config).sizes if sizes is None else sizes
