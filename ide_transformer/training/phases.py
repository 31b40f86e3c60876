"""Phases of a run: the steps between two refinements in depth, see `training.refine`."""

import dataclasses
import functools as ft
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ..models import Model
from ..tasks import AbstractLoss, Batch
from .config import Config, TrainingConfig
from .meshes import mesh_maps
from .optimizer import build_optimizer
from .parallel import Layout
from .refinement import next_model, resample_state
from .step import TrainState, initial_state, make_evaluation, make_train_step, objective


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Steps of a run whose weights have the same shapes: all, where it is not refined.

    - `first`, `last`: the numbers of steps taken before it and at its end. The state after the
      last step still has the shapes of this phase.
    - `model`: its weights have the shapes of this phase.
    - `shapes`: of the state of training.
    - `enter`: the first state, from the last one of the phase before; `None` for the first
      phase.
    """

    training: TrainingConfig
    optimizer: optax.GradientTransformation
    first: int
    last: int
    model: Model
    shapes: TrainState
    enter: Any = None

    @property
    def static(self) -> PyTree:
        """The parts of the model that are no weights."""
        return eqx.filter(self.model, eqx.is_inexact_array, inverse=True)

    @ft.cached_property
    def evaluate(self) -> Callable[..., dict[str, float]]:
        """See `make_evaluation`."""
        return make_evaluation(self.static)

    def train_steps(self, loss: AbstractLoss, out_shardings: Any = None) -> list[Any]:
        """The step of each mesh for the loss of the task; see `make_train_step`."""
        return [
            make_train_step(
                self.optimizer,
                self.static,
                objective(loss, self.training),
                max_bad_steps=self.training.max_bad_steps,
                accumulate=self.training.accumulate,
                average=self.training.average,
                out_shardings=out_shardings,
                solved=mesh,
            )
            for mesh in mesh_maps(self.training)
        ]

    def lowered(
        self, loss: AbstractLoss, layout: Layout, batches: Sequence[Batch]
    ) -> Iterator[jax.stages.Lowered]:
        """The step of each mesh, ready to be compiled, for a batch of each. The state stays
        where it lies on the devices."""
        out = layout.shardings(self.shapes), layout.whole()
        for step, batch in zip(self.train_steps(loss, out), batches, strict=True):
            yield step.lower(layout.shapes(self.shapes), layout.batch_shapes(batch))


def make_phases(
    config: Config, model: Model, key: PRNGKeyArray
) -> tuple[TrainState, list[Phase]]:
    """The state before the first step of a run, and its phases, from its `first_model`.
    `InputError` where the control cannot be refined so, or a group of the optimizer fits no
    weight."""
    training = config.training
    optimizer = build_optimizer(config.optimizer, training.steps)
    state, _ = initial_state(model, optimizer, key, average=training.average)
    shapes, enter = jax.eval_shape(lambda: state), None
    phases: list[Phase] = []
    begins = [*training.refine] or [0]
    for first, last in zip(begins, [*begins[1:], training.steps], strict=True):
        if first:
            intervals = training.refine[first]
            resample = ft.partial(
                resample_state,
                optimizer=optimizer,
                average=training.average,
                static=phases[-1].static,
                num_intervals=intervals,
            )
            model, enter = next_model(config, model, intervals), jax.jit(resample)
            shapes = jax.eval_shape(enter, shapes)
        phases.append(Phase(training, optimizer, first, last, model, shapes, enter))
    return state, phases


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase whose shapes a state after so many steps has."""
    return next((phase for phase in phases if step <= phase.last), phases[-1])


def shapes_at(phases: Sequence[Phase], step: int) -> TrainState:
    """The shapes of a state after so many steps."""
    return phase_at(phases, step).shapes
