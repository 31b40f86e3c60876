"""The figures of a run."""

from typing import Any

import diffrax
import jax.numpy as jnp

from ..models import AbstractModel
from ..reporting import plot_curves
from ..tasks import AbstractTask
from .folder import RunFolder
from .metrics import read_metrics


def plot_run(
    folder: RunFolder, task: AbstractTask, model: AbstractModel, end: dict[str, Any]
) -> None:
    """Plots the loss over the run, and the size of the state over depth.

    **Arguments:**

    - `model`: the trained model.
    - `end`: the step and the held-out loss at the end.
    """
    lines = [*read_metrics(folder.metrics), end]
    held_out = task.held_out_name
    losses = {"training": "loss", held_out: f"{held_out}_loss"}
    plot_curves(
        folder.plots / "loss.png",
        {name: _column(lines, key) for name, key in losses.items()},
        x="step",
        y="cross-entropy (nats)",
    )
    batch = next(task.held_out(64))
    knots = model.equation.knots
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=jnp.asarray(knots))).us
    axes = tuple(range(1, us.ndim))
    plot_curves(
        folder.plots / "state_norm.png",
        {
            "state": (knots, jnp.sqrt(jnp.mean(us**2, axes))),
            "increment": (knots[1:], jnp.sqrt(jnp.mean(jnp.diff(us, axis=0) ** 2, axes))),
        },
        x="depth t (layers)",
        y="root mean square over tokens and features",
        marker="o",
    )


def _column(lines: list[dict], key: str) -> tuple[list[int], list[float]]:
    chosen = [line for line in lines if line.get(key) is not None]
    return [line["step"] for line in chosen], [line[key] for line in chosen]
