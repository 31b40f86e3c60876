"""The cost that a run of a comparison may have."""

import itertools
import time
from collections import Counter
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import numpy as np
from pydantic import BeforeValidator, Field, PositiveFloat

from ...errors import InputError
from ...tasks import AbstractTask
from ...training import Config, Section
from ...training.beginning import starting_model
from ...training.config import refinements
from ...training.meshes import drawn_mesh, mesh_maps, mesh_tasks
from ...training.parallel import make_layout
from ...training.phases import make_phases
from ...training.step import objective


# The steps of a mesh that are measured; the first one is not counted.
_MEASURED = 8


def _several(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


class Budget(Section):
    """The cost that every run of a comparison may have.

    - `unit`: `field_evaluations` (one is every operator once, over the whole depth as many
      as the scheme makes), `steps` of the optimiser, or `seconds` of training.
    - `amount`: how much; of several, each scheme is trained with each.
    """

    unit: Literal["field_evaluations", "steps", "seconds"] = "steps"
    amount: Annotated[
        tuple[PositiveFloat, ...], BeforeValidator(_several), Field(min_length=1, strict=False)
    ]

    @property
    def each(self) -> list["Budget"]:
        """Budgets of one amount."""
        return [Budget(unit=self.unit, amount=(amount,)) for amount in sorted(self.amount)]

    @property
    def measured(self) -> bool:
        """Whether the steps that it allows are measured, so that they differ each time."""
        return self.unit == "seconds"

    def __str__(self) -> str:
        amounts = " or ".join(f"{amount:g}" for amount in self.amount)
        return f"{amounts} {self.unit.replace('_', ' ')}"

    def steps(self, config: Config, task: AbstractTask) -> int:
        """The optimiser steps of a run that a budget of one amount allows; the first batch is
        tried."""
        (amount,), training = self.amount, config.training
        late = [f"meshes: after={mesh.after}" for mesh in training.meshes if mesh.after]
        if any(moment and isinstance(moment, int) for moment in training.refine):
            late.append(f"refine={refinements(training.refine)}")
        if self.unit != "steps" and late:
            raise InputError(
                f"training.{late[0]}: what a step costs depends on how many there are, so a "
                f"budget of {self.unit} gives no number of them; write budget.unit=steps, or "
                "refine at fractions of the steps, such as {0: 1, 0.5: 8}."
            )
        match self.unit:
            case "seconds":
                cost = seconds_of_a_run(config, task) / training.steps
            case "field_evaluations":
                cost = field_evaluations(config, task)
            case "steps":
                try_first_batch(config, task)
                cost = 1.0
        steps = round(amount / cost)
        warmup = config.optimizer.warmup
        if not warmup < steps < 2**31:
            raise InputError(
                f"budget.amount={amount:g}: it allows {steps} optimiser steps; give an "
                f"amount for more than optimizer.warmup={warmup} and less than 2147483648."
            )
        return steps


def try_first_batch(config: Config, task: AbstractTask) -> None:
    """Makes the model of a run and looks whether a first batch fits it."""
    model, _ = starting_model(config, task)
    batch = task.batch(0, config.training.batch_size, config.training.seed)
    eqx.filter_eval_shape(objective(task.loss, config.training), model, batch)


def field_evaluations(config: Config, task: AbstractTask) -> float:
    """The mean over the steps of a run. Where the number depends on the state, that of the
    untrained model is taken."""
    training, total = config.training, 0.0
    state, phases = make_phases(config, *starting_model(config, task))
    minimised = eqx.filter_jit(objective(task.loss, training))
    for phase in phases:
        state = phase.enter(state) if phase.first else state
        model: Any = eqx.combine(state.weights, phase.static)
        drawn = _drawn(config, phase.first, phase.last)
        meshes = zip(mesh_maps(phase.meshes), phase.first_batches(task), strict=True)
        for mesh, (model_on, batch) in enumerate(meshes):
            loss: Any = minimised(model_on(model), batch)
            total += drawn[mesh] * float(loss.field_evaluations)
    return total / training.steps


def seconds_of_a_run(config: Config, task: AbstractTask) -> float:
    """The time of the steps of a run, without its evaluations, from a few of each phase and
    mesh, by the programs of the run."""
    training, layout = config.training, make_layout(config.parallel)
    state, phases = make_phases(config, *starting_model(config, task))
    total = 0.0
    with jax.set_mesh(layout.grid):
        state = layout.placed(state)
        for phase in phases:
            if phase.first:
                state = layout.placed(phase.enter(state))
            drawn = _drawn(config, phase.first, phase.last)
            tasks, firsts = mesh_tasks(phase.meshes, task), phase.first_batches(task)
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
    training, total = config.training.model_copy(update={"steps": steps}), 0
    for first, last in itertools.pairwise((*training.begins, steps)):
        drawn = _drawn(config, first, last)
        for mesh, data in enumerate(mesh_tasks(training.meshes_after(first), task)):
            total += drawn[mesh] * data.tokens_per_sample
    return total / steps


def _drawn(config: Config, first: int, last: int) -> Counter[int]:
    """The number of steps of a phase on each mesh."""
    return Counter(drawn_mesh(config.training, step) for step in range(first, last))
