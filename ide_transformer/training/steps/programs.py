"""The programs of each phase of a run: the entrance to it, the step and the evaluation."""

import dataclasses
import functools as ft
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ...errors import ConfigError, at
from ...models import Model
from ...tasks import AbstractTask, Batch, Loss, Mean, Part, averaged
from .growth import AbstractGrowth, grown_state
from .layout import Layout
from .schedule import Phase, Schedule
from .step import TrainState, initial_state, make_train_step, require_samples


# Samples in a batch of an evaluation.
_BATCH = 64


class UpdateRule(NamedTuple):
    """The update of the weights in each step. See `make_train_step` for its fields."""

    optimizer: optax.GradientTransformation
    average: float = 0.0
    accumulate: int = 1
    max_bad_steps: int = 10

    def start(self, model: Model, key: PRNGKeyArray) -> TrainState:
        """The state before the first step."""
        return initial_state(model, self.optimizer, key, average=self.average)[0]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The model of a phase, with its step and its evaluation.

    - `model`: the model of the phase; only its parts without weights are used.
    - `shapes`: the shapes of the training state.
    - `enter`: maps the last state of the phase before to the first state; `None` if shapes are
      equal.
    """

    phase: Phase
    rule: UpdateRule
    model: Model
    shapes: TrainState
    enter: Any = None

    @property
    def static(self) -> PyTree:
        """The model without its weights."""
        return eqx.filter(self.model, eqx.is_inexact_array, inverse=True)

    def for_evaluation(self, model: Model) -> Model:
        """The model as evaluations of this phase solve it."""
        return model.on(self.phase.evaluated)

    @ft.cached_property
    def _figures(self) -> Callable[..., dict[str, Mean]]:
        static = self.static

        @jax.jit
        def figures(loss, weights, batch):
            return loss(self.for_evaluation(eqx.combine(weights, static)), batch).figures

        return figures

    def evaluate(
        self,
        weights: PyTree,
        task: AbstractTask,
        part: Part,
        samples: int | None,
        check: Callable[[], None],
        layout: Layout,
    ) -> dict[str, float]:
        """The figures of held-out samples. `check` is called between batches and may raise."""

        def batches():
            for batch in task.held_out(_BATCH, samples, part):
                check()
                means = self._figures(task.loss, weights, layout.place(batch))
                yield {**means, **task.further_means(batch, means["loss"])}

        means = task.loss.figures(require_samples(averaged(batches())))
        return {f"{part}_{name}": mean for name, mean in means.items()}

    def on_meshes(
        self, task: AbstractTask, size: int, seed: int
    ) -> Iterator[tuple[Callable[[Model], Model], Batch]]:
        """For each mesh, the function that puts the model on it, and a first batch."""
        batches = (on_mesh.batch(0, size, seed) for on_mesh in self.phase.tasks(task))
        return zip(self.phase.models(), batches, strict=True)

    def lower(
        self, mesh: int, objective: Callable[..., Loss], layout: Layout, batch: Batch
    ) -> jax.stages.Lowered:
        """The training step on the mesh with this number, ready to be compiled for a batch."""
        rule = self.rule
        on_mesh = self.phase.models()[mesh]
        step = make_train_step(
            rule.optimizer,
            self.static,
            lambda model, *batch_and_key: objective(on_mesh(model), *batch_and_key),
            max_bad_steps=rule.max_bad_steps,
            accumulate=rule.accumulate,
            average=rule.average,
            out_shardings=(layout.shardings(self.shapes), layout.replicated()),
        )
        return step.lower(layout.shapes(self.shapes), layout.shapes(batch))


class Programs(tuple[Program, ...]):
    """The programs of all phases of a run."""

    def start(self, model: Model, key: PRNGKeyArray) -> TrainState:
        """The state before the first step."""
        return self[0].rule.start(model, key)

    @property
    def schedule(self) -> Schedule:
        """The phases of the run."""
        return Schedule(program.phase for program in self)

    def at(self, step: int) -> Program:
        """The program of the state after `step` steps."""
        return next((x for x in self if step <= x.phase.last), self[-1])

    def shapes_at(self, step: int) -> TrainState:
        """The shapes of the state after `step` steps."""
        return self.at(step).shapes


def make_programs(
    model: Model, schedule: Schedule, growth: AbstractGrowth, rule: UpdateRule
) -> Programs:
    """The programs of the phases of a run.

    **Arguments:**

    - `model`: the model of the first phase.
    - `growth`: how the model gets the layers of a later phase.

    **Raises:** `InputError` for layers that the model cannot grow to.
    """
    shapes = eqx.filter_eval_shape(rule.start, model, jax.random.key(0))
    programs: list[Program] = []
    for phase in schedule:
        enter = None
        layers = phase.layers
        if layers is not None and layers != model.layers:
            before = model
            enter = jax.jit(
                ft.partial(
                    grown_state,
                    growth=growth,
                    optimizer=rule.optimizer,
                    average=rule.average,
                    static=programs[-1].static,
                    layers=layers,
                )
            )
            with at(phase.key):
                shapes = jax.eval_shape(enter, shapes)
                model = growth.grown(before, layers)
            if layers % before.layers and weight_shapes(model) != weight_shapes(before):
                dividing = ", ".join(str(n) for n in range(1, layers) if layers % n == 0)
                raise ConfigError(
                    f"{phase.key}: {before.layers} layers cannot become {layers}; use "
                    f"{dividing} instead of {before.layers}."
                )
        programs.append(Program(phase, rule, model, shapes, enter))
    return Programs(programs)


def weight_shapes(model: Model) -> list[tuple[int, ...]]:
    """The shapes of the weights of a model, in order."""
    return [x.shape for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]
