"""The cost that a run of a comparison may have."""

import time
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import numpy as np
from pydantic import PositiveFloat

from ... import training
from ...errors import InputError
from ...models import AbstractModel
from ...tasks import AbstractTask, Batch
from ...training import Config, Section
from ...training.objective import objective


class Budget(Section):
    """The cost that every run of a comparison may have.

    - `unit`: `field_evaluations` (one is every operator once, over the whole depth as many
      as the scheme makes), `steps` of the optimiser, or `seconds` of training.
    - `amount`: how much.
    """

    unit: Literal["field_evaluations", "steps", "seconds"] = "steps"
    amount: PositiveFloat

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit.replace('_', ' ')}"

    def steps(self, config: Config, task: AbstractTask) -> int:
        """The optimiser steps of a run that the budget allows; the first batch is tried."""
        if config.training.refine and self.unit != "steps":
            raise InputError(
                f"training.refine={config.training.refine}: its steps cost differently, so a "
                f"budget of {self.unit} gives no number of them; write budget.unit=steps."
            )
        model = training.build_model(config, task, jax.random.key(config.training.seed))
        steps = round(self.amount / _COST_OF_A_STEP[self.unit](model, config, task))
        warmup = config.optimizer.warmup
        if not warmup < steps < 2**31:
            raise InputError(
                f"budget.amount={self.amount:g}: it makes {steps} optimiser steps; give what "
                f"makes more than optimizer.warmup={warmup} and less than 2147483648."
            )
        return steps


def _batch(step: int, config: Config, task: AbstractTask) -> Batch:
    return task.batch(step, config.training.batch_size, config.training.seed)


def _steps(model: AbstractModel, config: Config, task: AbstractTask) -> float:
    """One, for a first batch that fits the model."""
    eqx.filter_eval_shape(task.loss, model, _batch(0, config, task))
    return 1.0


def _field_evaluations(model: AbstractModel, config: Config, task: AbstractTask) -> float:
    """Where the number depends on the state, that of the untrained model is taken."""
    minimised = eqx.filter_jit(objective(task.loss, config.training))
    loss: Any = minimised(model, _batch(0, config, task))
    return float(loss.field_evaluations)


def seconds_of_a_step(model: AbstractModel, config: Config, task: AbstractTask) -> float:
    """Median time of an optimiser step."""
    optimizer = training.build_optimizer(config.optimizer, config.training.steps)
    state, static = training.initial_state(model, optimizer, jax.random.key(0))
    loss = objective(task.loss, config.training)
    step = training.make_train_step(optimizer, static, loss)
    seconds = []
    for index in range(12):
        batch = _batch(index, config, task)
        began = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[2:]))


# From the unit of a budget to that of one step.
_COST_OF_A_STEP: dict[str, Callable[[AbstractModel, Config, AbstractTask], float]] = {
    "steps": _steps,
    "field_evaluations": _field_evaluations,
    "seconds": seconds_of_a_step,
}
