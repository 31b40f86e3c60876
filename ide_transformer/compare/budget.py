"""The cost that a comparison allows each run, and what it buys with coarse meshes first."""

from collections import Counter
from typing import Annotated, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from ..dynamics.budget import field_operations
from ..equation import by_samples
from ..errors import InputError
from ..models import Model
from ..reporting import Row
from ..tasks import AbstractTask, Batch
from ..training import Config, Section, build_task, read_section, schedule_of, section
from ..training.configuration.config import Converted, PositiveFloat, not_empty
from ..training.configuration.text import apply_overrides
from ..training.setup import setup
from ..training.steps.schedule import needed_by_refinement


# A run is refined after half of its steps, while the rate is high, or in doublings of one layer
# that end at these percents of the steps, by the number of layers; see
# docs/results/coarse_first.md.
_MOMENT = 50
_DOUBLINGS = {8: (60, 78, 92), 16: (60, 75, 87, 95)}
# The run that had the lowest loss at equal evaluations there, and on what, by `model.kind`.
_BEST = {
    "language_model": ("one layer first", "texts"),
    "image_classifier": ("one layer first", "images"),
    "operator_model": ("2 layers first", "Burgers' and Darcy's equations"),
}


@section
class Budget(Section):
    """The cost of every run of a comparison.

    - `unit`: `steps` of the optimiser; `field_evaluations`, of which one evaluates every
      operator once, over the whole depth; or `flops`, the floating-point operations of these
      evaluations for a batch, which also depend on the tokens of the mesh.
    - `amount`: a number, or a list: each scheme is trained with each of them.
    """

    unit: Literal["field_evaluations", "flops", "steps"] = "steps"
    amount: Annotated[
        tuple[PositiveFloat, ...],
        not_empty,
        Converted(lambda x: x if isinstance(x, list) else [x]),
    ]

    @property
    def each(self) -> list["Budget"]:
        """Budgets of one amount."""
        return [Budget(unit=self.unit, amount=(amount,)) for amount in sorted(self.amount)]

    def __str__(self) -> str:
        amounts = " or ".join(f"{amount:g}" for amount in self.amount)
        return f"{amounts} {self.unit.replace('_', ' ')}"

    def steps(self, config: Config, task: AbstractTask) -> int:
        """The optimiser steps that a budget of one amount allows. Tries the first batch."""
        (amount,) = self.amount
        late = [x.until for x in config.training.schedule if isinstance(x.until, int)]
        if self.unit != "steps" and late:
            what = f"training.schedule: until={late[0]}: {self.unit} give no number of steps"
            raise InputError(f"{what}; write budget.unit=steps, or a part such as until: 50%.")
        if self.unit == "steps":
            setup(config, task).check_shapes()
            steps = round(amount)
        else:
            steps = round(amount / cost_of_step(config, task, self.unit))
        warmup = config.optimizer.warmup
        if not warmup < steps < 2**31:
            what = f"budget.amount={amount:g} allows {steps} steps"
            raise InputError(f"{what}; give one for more than optimizer.warmup={warmup}.")
        return steps


def cost_of_step(
    config: Config,
    task: AbstractTask,
    unit: Literal["field_evaluations", "flops"] = "field_evaluations",
) -> float:
    """Field evaluations of a step or their operations, the mean over the run. If they depend on
    the state, the untrained model is measured."""
    total = 0.0
    untrained = setup(config, task)
    training = config.training
    state = untrained.programs.start(untrained.model, untrained.key)
    objective = eqx.filter_jit(untrained.objective)
    schedule = untrained.programs.schedule
    for program in untrained.programs:
        state = state if program.enter is None else program.enter(state)
        model = eqx.combine(state.weights, program.static)
        steps = range(program.phase.first, program.phase.last)
        drawn = Counter(schedule.drawn(training.seed, step) for step in steps)
        on_meshes = program.on_meshes(task, training.batch_size, training.seed)
        for mesh, (model_on, batch) in enumerate(on_meshes):
            if drawn[mesh]:
                on_mesh = model_on(model)
                cost = float(objective(on_mesh, batch).field_evaluations)
                if unit == "flops":
                    cost *= flops_of_evaluation(on_mesh, batch)
                total += drawn[mesh] * cost
    return total / training.steps


def flops_of_evaluation(model: Model, batch: Batch) -> float:
    """Floating-point operations of an evaluation of the field for a batch; see
    `field_operations`."""
    inputs = batch.inputs
    own = by_samples(inputs, 1)
    first = jax.tree.map(lambda x, sample: x[0] if sample else x, inputs, own)
    equation, u0 = model.initial_value_problem(first)
    return field_operations(equation, u0) * len(jax.tree.leaves(batch.targets)[0])


def tokens_of_samples(
    config: Config, task: AbstractTask, steps: int
) -> Int[np.ndarray, " steps"]:
    """The tokens of a sample in each step, on the mesh that is drawn for it."""
    schedule = schedule_of(config.changed("training", steps=steps))
    found = []
    for phase in schedule:
        sizes = [data.tokens_per_sample for data in phase.tasks(task)]
        steps_of_phase = range(phase.first, phase.last)
        found += [sizes[schedule.drawn(config.training.seed, x)] for x in steps_of_phase]
    return np.array(found)


def advice(config: Config) -> str:
    """Which run of a plan to take, and why."""
    found = _BEST.get(config.model.kind)
    page = "docs/results/coarse_first.md"
    if found is None:
        return f"Compare them on validation data: {page} has no {config.model.kind}."
    best, measured = found
    if config.model.kind == "language_model" and config.model.layers in _DOUBLINGS:
        best = "doublings of one layer"
    return (
        f"Take the run with {best}: on {measured} it had the lowest loss of its depth at equal "
        f"evaluations. Compare it with a model of fewer layers, too ({page})."
    )


def plan_refinement(config: Config, evaluations: float) -> list[Row]:
    """The runs that a budget of field evaluations allows: with all layers from the start, with
    one or two layers first, and with doublings of one layer. A row has the overrides of a run,
    with what a coarse mesh needs, and its field evaluations."""
    layers = config.model.layers
    if any(phase.meshes for phase in config.training.schedule):
        raise InputError("training.schedule draws meshes; give a configuration without.")
    coarse = [first for first in (1, 2) if first < layers and layers % first == 0]
    if not coarse:
        raise InputError(f"model.layers={layers}: it has no coarser mesh; give 2 or more.")
    task = build_task(config)
    budget = Budget(unit="field_evaluations", amount=(evaluations,))
    rows = []
    moments = [{}, *({first: _MOMENT} for first in coarse)]
    if layers in _DOUBLINGS:
        moments.append({2**i: moment for i, moment in enumerate(_DOUBLINGS[layers])})
    for until in moments:
        each = (f"{{until: {x}%, mesh: {{layers: {n}}}}}" for n, x in until.items())
        schedule = f"[{', '.join(each)}]"
        # Unset keys keep the defaults that go with a refinement.
        tree = config.changes()
        where = f"training.schedule={schedule}"
        apply_overrides(tree, [where])
        needed = needed_by_refinement(read_section(Config, tree, where))
        apply_overrides(tree, needed)
        steps = budget.steps(read_section(Config, tree, where), task)
        tree["training"]["steps"] = steps
        planned = read_section(Config, tree, f"{where}, training.steps={steps}")
        overrides = [f"training.steps={steps}", f"training.schedule='{schedule}'", *needed]
        spent = round(steps * cost_of_step(planned, task))
        rows.append({"overrides": " ".join(overrides), "field_evaluations": spent})
    return rows
