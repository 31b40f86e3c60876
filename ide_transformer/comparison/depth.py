"""Depth solved anew: one trained model with fewer and with more field evaluations."""

from pathlib import Path

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float
from rich.console import Console

from ..depth import DepthReport, depth_report, plot_depth
from ..errors import InputError
from ..models import AbstractModel
from ..tasks import Batch
from ..training import build_task, load_run
from .report import Report, write_report


def compare_depth(path: Path, folder: Path, *, calibration: int, held_out: int) -> list[Report]:
    """Coarsens and refines the model in `path`, compares it with dropping layers by the rules
    in use, and writes tables and figures into `folder`.

    **Arguments:**

    - `path`: the folder of a run.
    - `calibration`, `held_out`: samples on which the steps are chosen and fitted, and on
      which the result is measured.

    **Raises:** `InputError` for a path without a model, or sizes that are not positive.
    """
    for name, size in (("calibration", calibration), ("held_out", held_out)):
        if size < 1:
            raise InputError(f"compare_depth: {name}={size}; give it at least one sample.")
    console = Console(highlight=False, soft_wrap=True)
    model, chosen_on, measured_on = _load(path, calibration, held_out)

    def loss_of(logits: Array) -> Float[Array, ""]:
        targets = jnp.asarray(measured_on.targets)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))

    result = depth_report(
        model,
        chosen_on.inputs,
        measured_on.inputs,
        loss_of,
        progress=lambda method: console.print(method, markup=False),
    )
    reports = _reports(path, result, len(chosen_on.inputs), len(measured_on.inputs))
    write_report(folder, reports[0])
    write_report(folder / "layers", reports[1])
    plot_depth(folder, result.rows)
    return reports


def _load(path: Path, calibration: int, held_out: int) -> tuple[AbstractModel, Batch, Batch]:
    """The model, a batch of what it was trained on, and one that was held out."""
    model, run = load_run(path)
    config = run.load_config()
    task = build_task(config)
    # A batch of a step that the training did not reach.
    chosen_on = task.batch(config.training.steps, calibration, config.training.seed)
    return model, chosen_on, next(task.held_out(held_out, samples=held_out))


def _reports(path: Path, result: DepthReport, calibration: int, held_out: int) -> list[Report]:
    about = (
        f"The weights of {path} with fewer and with more field evaluations. Steps were chosen "
        f"and fitted on {calibration} samples without their targets; error (of the outputs, "
        f"relative to those of the native solve) and loss are those of {held_out} held-out "
        "samples."
    )
    ranking = result.ranking
    ranks = ", ".join(f"{name} {value:.2f}" for name, value in ranking.correlations.items())
    about_layers = (
        "Defects of each layer, what the equation foretells of leaving it out (estimate), and "
        f"the output error that this makes (damage). Spearman's correlation with it: {ranks}."
    )
    return [
        Report(f"depth of {path.name}", about, result.rows, "loss"),
        Report(f"layers of {path.name}", about_layers, ranking.layers, "damage"),
    ]
