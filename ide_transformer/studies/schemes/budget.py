import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import numpy as np

from ...models import AbstractModel
from ...tasks import AbstractTask, Batch, cross_entropy
from ...training import Config, build_model, build_optimizer, initial_state, make_train_step
from ...training.config import PositiveFloat, Section


class _FirstStep(NamedTuple):
    """A run before its first step."""

    config: Config
    task: AbstractTask
    model: AbstractModel

    def batch(self, step: int) -> Batch:
        training = self.config.training
        return self.task.batch(step, training.batch_size, training.seed)

    def steps(self) -> float:
        """One, for a first batch that fits the model."""
        eqx.filter_eval_shape(cross_entropy, self.model, self.batch(0))
        return 1.0

    def field_evaluations(self) -> float:
        """Where the number depends on the state, that of the untrained model is taken."""
        loss: Any = eqx.filter_jit(cross_entropy)(self.model, self.batch(0))
        return float(loss.field_evaluations)

    def seconds(self) -> float:
        """Median time of an optimiser step."""
        training = self.config.training
        optimizer = build_optimizer(self.config.optimizer, training.steps)
        state, static = initial_state(self.model, optimizer, jax.random.key(0))
        noisy, transport = self.config.model.dropout > 0, training.transport
        step = make_train_step(optimizer, static, noisy=noisy, transport=transport)
        seconds = []
        for index in range(12):
            batch = self.batch(index)
            began = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready(metrics)
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds[2:]))


# From the unit of a budget to that of one step.
_COST_OF_A_STEP: dict[str, Callable[[_FirstStep], float]] = {
    "steps": _FirstStep.steps,
    "field_evaluations": _FirstStep.field_evaluations,
    "seconds": _FirstStep.seconds,
}


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
        model = build_model(config, task, jax.random.key(config.training.seed))
        cost = _COST_OF_A_STEP[self.unit](_FirstStep(config, task, model))
        return max(round(self.amount / cost), config.optimizer.warmup + 1)
