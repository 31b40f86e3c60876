"""Runs: what they have logged, and what their models do in depth."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ...equation import AbstractExpansion, parts
from ...errors import InputError
from ...figures import Curve
from ...models import Model
from ...training import (
    Config,
    DepthProfile,
    RunFolder,
    depth_profile,
    load_run,
    read_metrics,
    run_task,
)


# Held-out samples that are solved.
SAMPLES = 16


class RunRecord(NamedTuple):
    """A run, as far as it has come. No other run of the report has its name; the summary is
    empty for a run that goes on."""

    name: str
    folder: RunFolder
    config: Config
    lines: list[dict[str, Any]]
    summary: dict[str, Any]

    def logged(self, key: str) -> tuple[list[int], list[float]]:
        """The steps and the values of a figure of the log, where it has a finite value."""
        found = {x["step"]: x[key] for x in self.lines if x.get(key) is not None}
        return [*found], [*found.values()]

    def curve(self, key: str) -> Curve:
        return Curve(self.name, *self.logged(key))

    @property
    def sample(self) -> str | None:
        """The text that it wrote at its end; `None` without one."""
        if not self.folder.sample.exists():
            return None
        # What is damaged is shown as such.
        return self.folder.sample.read_text(encoding="utf-8", errors="replace").rstrip("\n")


def read_runs(paths: Sequence[str | Path], *, trust: bool = False) -> list[RunRecord]:
    """The records of runs, by their folders; for `trust` see `load_run`."""
    folders = {Path(path).resolve(): RunFolder(path) for path in paths}
    short = [place.name for place in folders]
    records = []
    for place, folder in folders.items():
        config = folder.load_config(trust)
        lines = read_metrics(folder.metrics) if folder.metrics.exists() else []
        if not any("loss" in line for line in lines):
            raise InputError(
                f"{folder.path} has logged no step of training ({folder.metrics.name}), so "
                "there is nothing to show; train it, or name another run."
            )
        summary = folder.load_summary() if folder.summary.exists() else {}
        name = place.name if short.count(place.name) == 1 else str(folder.path)
        records.append(RunRecord(name, folder, config, lines, summary))
    return records


class Attempts(NamedTuple):
    """The steps that an adaptive solve tried, by their beginning, `[attempts]` each: `depths`
    where they begin, `sizes` in layers, and whether the solve went on from their end."""

    depths: np.ndarray
    sizes: np.ndarray
    accepted: np.ndarray


class Measured(NamedTuple):
    """The model of the newest checkpoint of a run on some held-out samples.

    - `loss_label`: of its task.
    - `profile`: norms along the solution.
    - `weights`: root mean squares of θ(t) in the middle of each interval, `[intervals]`.
    - `coefficients`: root mean squares of the coefficients Θ_k of a control
      `θ(t) = Σ_k φ_k(t) Θ_k`, `[terms]`; `None` for a control that is no such sum.
    - `attempts`: the steps of an adaptive solve; `None` where steps are equal.
    """

    loss_label: str
    profile: DepthProfile
    weights: np.ndarray
    coefficients: np.ndarray | None
    attempts: Attempts | None


def measure(run: RunRecord) -> Measured:
    """Loads the model of a run and solves some held-out samples. It fails where there is no
    checkpoint, or the data are not there any more or have changed."""
    model, _ = load_run(run.folder.path, trust=True)
    task = run_task(run.folder, trust=True)
    inputs = next(task.held_out(SAMPLES)).inputs
    control = model.control
    middles = (jnp.arange(control.num_intervals) + 0.5) * control.interval_length
    coefficients = None
    for expansion in parts(control, AbstractExpansion):
        terms = eqx.filter(expansion.coefficients, eqx.is_array)
        coefficients = np.asarray(jax.lax.map(_rms, terms))
        break
    return Measured(
        loss_label=task.loss.label,
        profile=depth_profile(model, inputs),
        weights=np.asarray(jax.lax.map(lambda t: _rms(control(t)), middles)),
        coefficients=coefficients,
        attempts=step_attempts(model, inputs),
    )


def _rms(tree: PyTree) -> jax.Array:
    """The root mean square over all weights of a tree."""
    leaves = [x for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x)]
    total = sum(jnp.sum(x**2) for x in leaves)
    return jnp.sqrt(total / max(sum(x.size for x in leaves), 1))


def step_attempts(model: Model, inputs: PyTree) -> Attempts | None:
    """The steps of a solve of some inputs, the same for all of them; `None` for a model that is
    solved with equal steps."""
    controller = model.discretization.stepsize_controller
    if controller is None:
        return None
    tried: list[tuple[float, float, bool]] = []

    def note(t0: Any, t1: Any, accepted: Any) -> None:
        tried.append((float(t0), float(t1 - t0), bool(accepted)))

    watched = _Watched(controller, note)
    watched_model = model.with_options(stepsize_controller=watched, steps_for="batch")
    jax.block_until_ready(watched_model.solve(inputs).u1)
    jax.effects_barrier()
    # The device may report them in any order; a step that is refused is tried again, smaller.
    ordered = sorted(tried, key=lambda step: (step[0], -step[1]))
    depths, sizes, accepted = np.array(ordered, float).reshape(-1, 3).T
    return Attempts(depths, sizes, accepted.astype(bool))


class _Watched(diffrax.AbstractStepSizeController):
    """A step size controller that calls `note` with the ends of each step and whether it was
    accepted."""

    controller: diffrax.AbstractStepSizeController
    note: Callable[[Any, Any, Any], None] = eqx.field(static=True)

    def wrap(self, direction):
        return _Watched(self.controller.wrap(direction), self.note)

    def init(self, *arguments):
        return self.controller.init(*arguments)

    def adapt_step_size(self, t0, t1, *others, **named):
        result = self.controller.adapt_step_size(t0, t1, *others, **named)
        jax.debug.callback(self.note, t0, t1, result[0])
        return result
