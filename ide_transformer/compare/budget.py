"""The budget of runs, and plans of runs that begin on coarse meshes."""

from collections import Counter
from typing import Annotated, Literal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Int

from ..arguments import PositiveFloat
from ..dynamics.budget import field_operations
from ..equation import by_samples
from ..errors import ConfigError, InputError
from ..models import Model
from ..reporting import Row
from ..tasks import AbstractTask, Batch
from ..training import Config, Section, build_task, mesh_drawer, read_section, section
from ..training.configuration.section import not_empty
from ..training.configuration.text import apply_overrides
from ..training.setup import setup
from ..training.steps.schedule import overrides_for_refinement


# When a run is refined, in percent of its steps: once, or in doublings of one layer, by the
# number of layers. See docs/results/coarse_first.md.
_MOMENT = 50
_DOUBLINGS = {8: (60, 78, 92), 16: (60, 75, 87, 95)}
# The run with the lowest loss at equal evaluations on that page, and its data, by `model.kind`.
_BEST = {
    "language_model": ("one layer first", "texts"),
    "image_classifier": ("one layer first", "images"),
    "operator_model": ("2 layers first", "Burgers' and Darcy's equations"),
}


@section
class Budget(Section):
    """The cost of every run of a comparison.

    - `unit`: `steps` of the optimiser; `field_evaluations`, where an evaluation is every
      operator once; or `flops`, the floating-point operations of these evaluations for a batch,
      which also depend on the tokens of the mesh. Too low above 1,448 tokens, where attention
      is a loop and the compiler counts one turn.
    - `amount`: a number, or a list to train each scheme with each amount.
    """

    unit: Literal["field_evaluations", "flops", "steps"] = "steps"
    amount: PositiveFloat | Annotated[tuple[PositiveFloat, ...], not_empty]

    @property
    def amounts(self) -> tuple[float, ...]:
        """The amounts, from the smallest to the largest."""
        amounts = self.amount if isinstance(self.amount, tuple) else (self.amount,)
        return tuple(sorted(amounts))

    @property
    def each(self) -> list["Budget"]:
        """A budget for each amount."""
        return [self.replace(amount=amount) for amount in self.amounts]

    def __str__(self) -> str:
        amounts = " or ".join(f"{amount:g}" for amount in self.amounts)
        return f"{amounts} {self.unit.replace('_', ' ')}"

    def steps(self, config: Config, task: AbstractTask) -> int:
        """The optimiser steps that a budget of one amount allows. Checks that the model fits
        the data."""
        (amount,) = self.amounts
        if self.unit == "steps":
            setup(config, task).check_shapes()
            steps = round(amount)
        else:
            ends = [x.until for x in config.training.schedule if isinstance(x.until, int)]
            if ends:
                raise ConfigError(
                    f"{config.training.key / 'schedule'}: until={ends[0]} is a number of "
                    f"steps, which budget.unit={self.unit} does not fix; set "
                    "budget.unit=steps, or a share such as until: 50%."
                )
            steps = round(amount / cost_of_step(config, task, self.unit))
        warmup = config.optimizer.warmup
        if not warmup < steps < 2**31:
            raise ConfigError(
                f"{self.key / 'amount'}={amount:g} allows {steps} steps; it must allow "
                f"more than optimizer.warmup={warmup}."
            )
        return steps


def cost_of_step(
    config: Config,
    task: AbstractTask,
    unit: Literal["field_evaluations", "flops"] = "field_evaluations",
) -> float:
    """The field evaluations of a step, or their operations, averaged over the run. Costs that
    depend on the state are measured on the untrained model."""
    total = 0.0
    untrained = setup(config, task)
    training = config.training
    state = untrained.phases.start(untrained.model, untrained.key)
    objective = eqx.filter_jit(untrained.objective)
    draw_mesh = mesh_drawer(config)
    for phase in untrained.phases:
        state = state if phase.enter is None else phase.enter(state)
        model = eqx.combine(state.weights, phase.static)
        steps_on_mesh = Counter(map(draw_mesh, range(phase.first, phase.last)))
        for mesh, num_steps in steps_on_mesh.items():
            on_mesh = mesh.adapt_model(model)
            batch = mesh.adapt_task(task).batch(0, training.batch_size, training.seed)
            cost = float(objective(on_mesh, batch).field_evaluations)
            if unit == "flops":
                cost *= flops_of_evaluation(on_mesh, batch)
            total += num_steps * cost
    return total / training.steps


def flops_of_evaluation(model: Model, batch: Batch) -> float:
    """The floating-point operations of a field evaluation for a batch; see
    `field_operations`."""
    inputs = batch.inputs
    is_per_sample = by_samples(inputs, 1)
    first = jax.tree.map(lambda x, per_sample: x[0] if per_sample else x, inputs, is_per_sample)
    equation, u0 = model.initial_value_problem(first)
    return field_operations(equation, u0) * len(jax.tree.leaves(batch.targets)[0])


def tokens_of_samples(
    config: Config, task: AbstractTask, steps: int
) -> Int[np.ndarray, " steps"]:
    """The tokens of a sample in each step, on the mesh of the step."""
    draw_mesh = mesh_drawer(config.changed("training", steps=steps))
    meshes = [*map(draw_mesh, range(steps))]
    tokens = {mesh: mesh.adapt_task(task).tokens_per_sample for mesh in set(meshes)}
    return np.array([tokens[mesh] for mesh in meshes])


def advice(config: Config) -> str:
    """Advises which run of a plan to use, and why."""
    page = "docs/results/coarse_first.md"
    kind = config.model.kind
    if kind not in _BEST:
        return f"Compare them on validation data: {page} has no {kind}."
    best, data = _BEST[kind]
    if kind == "language_model" and config.model.layers in _DOUBLINGS:
        best = "doublings of one layer"
    return (
        f"Use the run with {best}: on {data} it had the lowest loss of its depth at equal "
        f"evaluations. Compare it with a model of fewer layers, too ({page})."
    )


def plan_refinement(config: Config, evaluations: int | float) -> list[Row]:
    """Plans runs with equal field evaluations: with all layers from the start, with one or two
    layers first, and with doublings of one layer. A row has the overrides of a run, also those
    that a coarse mesh needs, and its field evaluations."""
    layers = config.model.layers
    if any(phase.meshes for phase in config.training.schedule):
        raise InputError("training.schedule draws meshes; use a configuration without them.")
    coarse = [first for first in (1, 2) if first < layers and layers % first == 0]
    if not coarse:
        raise InputError(f"model.layers={layers} must be 2 or more, to have a coarser mesh.")
    task = build_task(config)
    budget = Budget(unit="field_evaluations", amount=evaluations)
    rows = []
    # For each number of layers, the percent of the steps at which its phase ends.
    plans = [{}, *({first: _MOMENT} for first in coarse)]
    if layers in _DOUBLINGS:
        plans.append({2**i: percent for i, percent in enumerate(_DOUBLINGS[layers])})
    for plan in plans:
        phases = (f"{{until: {x}%, mesh: {{layers: {n}}}}}" for n, x in plan.items())
        schedule = f"[{', '.join(phases)}]"
        # Unset keys keep the defaults of a refinement.
        tree = config.changes()
        where = f"training.schedule={schedule}"
        apply_overrides(tree, [where])
        recipe = overrides_for_refinement(read_section(Config, tree, where=where))
        apply_overrides(tree, recipe)
        steps = budget.steps(read_section(Config, tree, where=where), task)
        tree["training"]["steps"] = steps
        planned = read_section(Config, tree, where=f"{where}, training.steps={steps}")
        overrides = [f"training.steps={steps}", f"training.schedule='{schedule}'", *recipe]
        cost = round(steps * cost_of_step(planned, task))
        rows.append({"overrides": " ".join(overrides), "field_evaluations": cost})
    return rows
