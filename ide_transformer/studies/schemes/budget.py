"""The cost that a run of a comparison may have."""

import time
from collections import Counter
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from pydantic import PositiveFloat

from ...errors import InputError
from ...tasks import AbstractTask
from ...training import Config, Section
from ...training.build import starting_model
from ...training.meshes import drawn_mesh, first_batches, mesh_maps, mesh_tasks
from ...training.parallel import make_layout
from ...training.phases import make_phases
from ...training.step import objective


# The steps of a mesh that are measured; the first one is not counted.
_MEASURED = 8


class Budget(Section):
    """The cost that every run of a comparison may have.

    - `unit`: `field_evaluations` (one is every operator once, over the whole depth as many
      as the scheme makes), `steps` of the optimiser, or `seconds` of training.
    - `amount`: how much.
    """

    unit: Literal["field_evaluations", "steps", "seconds"] = "steps"
    amount: PositiveFloat

    @property
    def measured(self) -> bool:
        """Whether the steps that it allows are measured, so that they differ each time."""
        return self.unit == "seconds"

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit.replace('_', ' ')}"

    def steps(self, config: Config, task: AbstractTask) -> int:
        """The optimiser steps of a run that the budget allows; the first batch is tried."""
        training = config.training
        late = [mesh.after for mesh in training.meshes if mesh.after]
        if self.unit != "steps" and (training.refine or late):
            key = f"refine={training.refine}" if training.refine else f"meshes: after={late[0]}"
            raise InputError(
                f"training.{key}: what a step costs depends on how many there are, so a budget "
                f"of {self.unit} gives no number of them; write budget.unit=steps."
            )
        match self.unit:
            case "seconds":
                cost = seconds_of_a_run(config, task) / training.steps
            case "field_evaluations":
                cost = _field_evaluations(config, task)
            case "steps":
                try_first_batch(config, task)
                cost = 1.0
        steps = round(self.amount / cost)
        warmup = config.optimizer.warmup
        if not warmup < steps < 2**31:
            raise InputError(
                f"budget.amount={self.amount:g}: it makes {steps} optimiser steps; give what "
                f"makes more than optimizer.warmup={warmup} and less than 2147483648."
            )
        return steps


def try_first_batch(config: Config, task: AbstractTask) -> None:
    """Makes the model of a run and looks whether a first batch fits it."""
    model, _ = starting_model(config, task)
    batch = task.batch(0, config.training.batch_size, config.training.seed)
    eqx.filter_eval_shape(task.loss, model, batch)


def _field_evaluations(config: Config, task: AbstractTask) -> float:
    """The mean over the meshes of a run. Where the number depends on the state, that of the
    untrained model is taken."""
    training = config.training
    model, _ = starting_model(config, task)
    minimised = eqx.filter_jit(objective(task.loss, training))
    drawn, total = _drawn(config, 0, training.steps), 0.0
    meshes = zip(mesh_maps(training), first_batches(training, task), strict=True)
    for mesh, (model_on, batch) in enumerate(meshes):
        loss: Any = minimised(model_on(model), batch)
        total += drawn[mesh] * float(loss.field_evaluations)
    return total / training.steps


def seconds_of_a_run(config: Config, task: AbstractTask) -> float:
    """The time of the steps of a run, without its evaluations, from a few of each phase and
    mesh, by the programs of the run."""
    training, layout = config.training, make_layout(config.parallel)
    state, phases = make_phases(config, *starting_model(config, task))
    tasks, firsts = mesh_tasks(training, task), first_batches(training, task)
    total = 0.0
    with jax.set_mesh(layout.grid):
        state = layout.placed(state)
        for phase in phases:
            if phase.first:
                state = layout.placed(phase.enter(state))
            drawn = _drawn(config, phase.first, phase.last)
            for mesh, lowered in enumerate(phase.lowered(task.loss, layout, firsts)):
                step, seconds = lowered.compile(), []
                for number in range(_MEASURED):
                    batch = layout.load(tasks[mesh], number, training.batch_size, training.seed)
                    began = time.perf_counter()
                    state, metrics = step(state, batch)
                    jax.block_until_ready(metrics)
                    seconds.append(time.perf_counter() - began)
                total += drawn[mesh] * float(np.median(seconds[1:]))
    return total


def tokens_of_a_sample(config: Config, task: AbstractTask, steps: int) -> float:
    """The mean over so many steps, each on the mesh that is drawn for it."""
    tokens = [data.tokens_per_sample for data in mesh_tasks(config.training, task)]
    drawn = _drawn(config, 0, steps)
    return sum(drawn[mesh] * number for mesh, number in enumerate(tokens)) / steps


def _drawn(config: Config, first: int, last: int) -> Counter[int]:
    """The number of steps of a phase on each mesh."""
    return Counter(drawn_mesh(config.training, step) for step in range(first, last))
