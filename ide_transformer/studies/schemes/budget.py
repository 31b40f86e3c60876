"""The cost that a run of a comparison may have, and what it buys with coarse meshes first."""

import itertools
import time
from collections import Counter
from typing import Annotated, Any, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int
from pydantic import BeforeValidator, Field, PositiveFloat

from ...errors import InputError
from ...reporting import Row
from ...tasks import AbstractTask
from ...training import Config, Section, build_task, validated
from ...training.config import needed_by_refinement, refinements
from ...training.loading import starting_model
from ...training.parallel import make_layout
from ...training.phases import drawn_mesh, make_phases, mesh_tasks
from ...training.reading import apply_overrides
from ...training.step import objective


# The steps of a mesh that are measured; the first one is not counted.
_MEASURED = 8
# The moment at which a run is refined: half of its steps, while the rate is high, see
# docs/results/coarse_first.md.
_MOMENT = 0.5


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
        (amount,) = self.amount
        training = config.training
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
    model = starting_model(config, task).model
    batch = task.batch(0, config.training.batch_size, config.training.seed)
    eqx.filter_eval_shape(objective(task.loss, config.training), model, batch)


def field_evaluations(config: Config, task: AbstractTask) -> float:
    """The mean over the steps of a run. Where the number depends on the state, that of the
    untrained model is taken."""
    training = config.training
    total = 0.0
    state, phases = make_phases(config, *starting_model(config, task)[:2])
    minimised = eqx.filter_jit(objective(task.loss, training))
    for phase in phases:
        state = phase.enter(state) if phase.first else state
        model = eqx.combine(state.weights, phase.static)
        drawn = _drawn(config, phase.first, phase.last)
        for mesh, (model_on, batch) in enumerate(phase.on_meshes(task)):
            loss = minimised(model_on(model), batch)
            total += drawn[mesh] * float(loss.field_evaluations)
    return total / training.steps


def seconds_of_a_run(config: Config, task: AbstractTask) -> float:
    """The time of the steps of a run, without its evaluations, from a few of each phase and
    mesh, by the programs of the run."""
    training = config.training
    layout = make_layout(config.parallel)
    state, phases = make_phases(config, *starting_model(config, task)[:2])
    total = 0.0
    with jax.set_mesh(layout.grid):
        state = layout.placed(state)
        for phase in phases:
            if phase.first:
                state = layout.placed(phase.enter(state))
            drawn = _drawn(config, phase.first, phase.last)
            tasks = mesh_tasks(phase.meshes, task)
            programs = phase.lowered(task.loss, layout, phase.first_batches(task))
            for mesh, lowered in enumerate(programs):
                step = lowered.compile()
                seconds = []
                for number in range(_MEASURED):
                    batch = layout.load(tasks[mesh], number, training.batch_size, training.seed)
                    began = time.perf_counter()
                    state, metrics = step(state, batch)
                    jax.block_until_ready(metrics)
                    seconds.append(time.perf_counter() - began)
                total += drawn[mesh] * float(np.median(seconds[1:]))
    return total


def tokens_of_samples(
    config: Config, task: AbstractTask, steps: int
) -> Int[np.ndarray, " steps"]:
    """The tokens of a sample in each of so many steps, on the mesh that is drawn for it."""
    training = config.training.model_copy(update={"steps": steps})
    found = []
    for first, last in itertools.pairwise((*training.begins, steps)):
        on_meshes = mesh_tasks(training.meshes_after(first), task)
        sizes = [data.tokens_per_sample for data in on_meshes]
        found += [sizes[drawn_mesh(training, step)] for step in range(first, last)]
    return np.array(found)


def _drawn(config: Config, first: int, last: int) -> Counter[int]:
    """The number of steps of a phase on each mesh."""
    return Counter(drawn_mesh(config.training, step) for step in range(first, last))


def plan_refinement(config: Config, budget: Budget) -> list[Row]:
    """The runs that a budget of one amount allows, with `model.depth` layers from the start and
    with one or two layers before: the overrides that make each, with those that a coarse mesh
    needs, its field evaluations, and its seconds on this machine, which are measured."""
    depth = config.model.depth
    if config.training.meshes:
        raise InputError(
            "training.meshes draws meshes of one model, and a plan refines it; give a "
            "configuration without."
        )
    coarse = [first for first in (1, 2) if first < depth and depth % first == 0]
    if not coarse:
        raise InputError(
            f"model.depth={depth}: no coarser mesh is there; give a depth of 2 or more."
        )
    task = build_task(config)
    rows = []
    for refine in ({}, *({0: first, _MOMENT: depth} for first in coarse)):
        # What was not set keeps the default that goes with a refinement.
        tree = config.model_dump(mode="json", exclude_unset=True)
        tree["training"] = {**tree.get("training", {}), "refine": refine}
        where = f"training.refine={refine}"
        needed = needed_by_refinement(validated(Config, tree, where))
        apply_overrides(tree, needed)
        steps = budget.steps(validated(Config, tree, where), task)
        tree["training"]["steps"] = steps
        planned = validated(Config, tree, f"{where}, training.steps={steps}")
        given = refinements(planned.training.refine)
        overrides = [f"training.steps={steps}", f"training.refine='{given}'", *needed]
        rows.append(
            {
                "overrides": " ".join(overrides),
                "field_evaluations": round(steps * field_evaluations(planned, task)),
                "seconds": round(seconds_of_a_run(planned, task)),
            }
        )
    return rows
