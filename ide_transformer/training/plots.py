"""The figures of a run."""

from collections.abc import Sequence

import diffrax
import jax.numpy as jnp

from ..models import Model
from ..tasks import AbstractTask
from .folder.metrics import read_metrics
from .folder.run_folder import RunFolder


# Held-out samples over which states are averaged.
_SAMPLES = 64


def plot_run(
    folder: RunFolder, task: AbstractTask, model: Model, begins: Sequence[int] = ()
) -> None:
    """Draws the loss over the run, with a line at each step where a phase `begins`; and over
    depth, the size of the state and of the increment of each layer."""
    from ..figures import plot_curves

    lines = read_metrics(folder.metrics)
    losses = {}
    for name, key in (("training", "loss"), ("validation", "validation_loss")):
        logged = {line["step"]: line[key] for line in lines if line.get(key) is not None}
        losses[name] = [*logged], [*logged.values()]
    plot_curves(
        folder.plots / "loss.png",
        losses,
        title="Loss over the run",
        x="step",
        y=task.loss.label,
        marks=begins,
    )
    batch = next(task.held_out(_SAMPLES))
    knots = jnp.asarray(model.equation.knots)
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=knots)).us
    axes = tuple(range(1, us.ndim))
    state, increment = (jnp.sqrt(jnp.mean(x**2, axes)) for x in (us, jnp.diff(us, axis=0)))
    plot_curves(
        folder.plots / "state_norm.png",
        {"state": (knots, state), "increment": (knots[1:], increment)},
        title="The state over depth, mean over tokens and features",
        x="depth t (layers)",
        y="root mean square",
        marker="o",
    )
