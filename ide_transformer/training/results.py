"""Writes the results of a run: figures, summary and sample."""

import time
from collections.abc import Sequence

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..models import Model
from ..reporting import write_json, write_text
from ..tasks import AbstractTask
from .folder.metrics import read_metrics, say
from .folder.run_folder import RunFolder
from .setup import Setup
from .steps.step import TrainState


# Held-out samples over which drawn states are averaged.
_SAMPLES = 64


def write_results(
    setup: Setup, folder: RunFolder, state: TrainState, held_out: dict[str, float], began: float
) -> None:
    """Writes figures, summary and sample.

    **Arguments:**

    - `state`: the last state, whose arrays this process has whole.
    - `held_out`: the figures of the held-out parts.
    - `began`: the reading of `time.perf_counter` at which the run would have begun, had it
      never stopped.
    """
    training = setup.training
    task = setup.task
    weights = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), state.weights)
    model = eqx.combine(weights, setup.phases[-1].static)
    say(
        "drawing the figures and writing a sample" if training.sample else "drawing the figures"
    )
    plot_run(folder, task, model, training.begins[1:])
    evaluations = float(state.evaluations)
    steps = int(state.step)
    summary = {
        **held_out,
        "steps": steps,
        "parameters": optax.tree.size(state.weights),
        "nfe": evaluations / steps,
        "evaluations": evaluations,
        "seconds": round(time.perf_counter() - began, 1),
        "bad_steps": int(state.faults.bad_steps),
        "rollbacks": int(state.faults.rollbacks),
    }
    write_json(folder.summary, summary)
    # Written last, so that a sample that fails costs no results.
    text = task.sample(model, training.sample) if training.sample else None
    if text is not None:
        write_text(folder.sample, text + "\n")


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
    look = dict(title="Loss over the run", x="step", y=task.loss.label)
    plot_curves(folder.plots / "loss.png", losses, marks=begins, **look)
    batch = next(task.held_out(_SAMPLES))
    knots = jnp.asarray(model.equation.knots)
    us = model.solve(batch.inputs, saveat=diffrax.SaveAt(ts=knots)).us
    axes = tuple(range(1, us.ndim))
    state, increment = (jnp.sqrt(jnp.mean(x**2, axes)) for x in (us, jnp.diff(us, axis=0)))
    curves = {"state": (knots, state), "increment": (knots[1:], increment)}
    title = "The state over depth, mean over tokens and features"
    look = dict(title=title, x="depth t (layers)", y="root mean square")
    plot_curves(folder.plots / "state_norm.png", curves, marker="o", **look)
