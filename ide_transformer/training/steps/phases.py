"""The phases of a run, each with its model, the entrance to it, its step and its evaluation."""

import contextlib
import dataclasses
import functools as ft
import itertools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ...errors import ConfigError, at
from ...integration import Mesh
from ...models import Model
from ...tasks import AbstractTask, Batch, Loss, Mean, Part, averaged
from ..configuration.config import Config
from ..configuration.training import TrainingConfig
from .build import needs_of
from .equations import build_without_data
from .growth import grow_state
from .layout import Layout
from .optimizer import build_optimizer
from .schedule import ScheduledMesh, scheduled_meshes
from .step import TrainState, initial_state, make_train_step, require_samples


# Samples in a batch of an evaluation.
_BATCH = 64


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Steps of a run whose weights have the same layers.

    - `first`, `last`: the numbers of steps taken before it and at its end.
    - `meshes`: its meshes. Each step draws one, see `mesh_drawer`.
    - `evaluated`: the steps of evaluations, if they differ from the model's.
    - `training`, `optimizer`: how a step updates the weights.
    - `model`: the model of the phase; only its parts without weights are used.
    - `shapes`: the shapes of the training state.
    - `enter`: maps the last state of the phase before to the first state; `None` if shapes are
      equal.
    """

    first: int
    last: int
    meshes: tuple[ScheduledMesh, ...]
    evaluated: Mesh
    training: TrainingConfig
    optimizer: optax.GradientTransformation
    model: Model
    shapes: TrainState
    enter: Any = None

    def __str__(self) -> str:
        return " or ".join(map(str, self.meshes))

    @property
    def static(self) -> PyTree:
        """The model without its weights."""
        return eqx.filter(self.model, eqx.is_inexact_array, inverse=True)

    def for_evaluation(self, model: Model) -> Model:
        """The model as evaluations of this phase solve it."""
        return model.on(self.evaluated)

    @ft.cached_property
    def _figures(self) -> Callable[..., dict[str, Mean]]:
        @jax.jit
        def figures(loss, weights, batch):
            return loss(self.for_evaluation(eqx.combine(weights, self.static)), batch).figures

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

    def lower(
        self, mesh: ScheduledMesh, objective: Callable[..., Loss], layout: Layout, batch: Batch
    ) -> jax.stages.Lowered:
        """The training step on one of the meshes, ready to be compiled for a batch."""
        training = self.training
        step = make_train_step(
            self.optimizer,
            self.static,
            lambda model, *batch_and_key: objective(mesh.adapt_model(model), *batch_and_key),
            max_bad_steps=training.max_bad_steps,
            accumulate=training.accumulate,
            average=training.average,
            out_shardings=(layout.shardings(self.shapes), layout.replicated()),
        )
        return step.lower(layout.shapes(self.shapes), layout.shapes(batch))


class Phases(tuple[Phase, ...]):
    """The phases of a run."""

    def start(self, model: Model, key: PRNGKeyArray) -> TrainState:
        """The state before the first step."""
        return initial_state(model, self[0].optimizer, key, average=self[0].training.average)[0]

    def at(self, step: int) -> Phase:
        """The phase of the state after `step` steps."""
        return next((phase for phase in self if step <= phase.last), self[-1])

    def shapes_at(self, step: int) -> TrainState:
        """The shapes of the state after `step` steps."""
        return self.at(step).shapes


def build_first_model(config: Config, build: Callable[[int | None], Model]) -> Model:
    """The model with which a run begins. Its weights are drawn for the first phase, since the
    mean of the draws of several layers would be small. `build` makes the model on a number of
    layers, by default its own."""
    training = config.training
    layers = training.phases[0].layers
    model = build(None)
    if layers is None:
        return model
    growth = training.growth.make()
    with at(training.key / "schedule" / 0):
        coarse = growth.coarse(model, layers)
    if not growth.averages or weight_shapes(coarse) == weight_shapes(model):
        return coarse
    return build(layers)


def make_phases(config: Config, model: Model) -> Phases:
    """The phases of a run from its `build_first_model`.

    **Raises:** `InputError` for layers that the model cannot grow to.
    """
    training = config.training
    optimizer = build_optimizer(config.optimizer, training.steps)
    growth = training.growth.make()
    shapes, _ = eqx.filter_eval_shape(
        initial_state, model, optimizer, jax.random.key(0), average=training.average
    )
    phases: list[Phase] = []
    ends = itertools.pairwise((*training.begins, training.steps))
    sections = zip(training.phases, ends, scheduled_meshes(config), strict=True)
    for section, (first, last), meshes in sections:
        enter = None
        layers = meshes[0].layers
        if layers is not None and layers != model.layers:
            before = model
            static = phases[-1].static
            enter = jax.jit(ft.partial(grow_state, growth=growth, static=static, layers=layers))
            key = training.key / "schedule" / len(phases)
            with at(key):
                shapes = jax.eval_shape(enter, shapes)
                model = growth.grown(before, layers)
            if layers % before.layers and weight_shapes(model) != weight_shapes(before):
                dividing = ", ".join(str(n) for n in range(1, layers) if layers % n == 0)
                raise ConfigError(
                    f"{key}: {before.layers} layers cannot become {layers}; use {dividing} "
                    f"instead of {before.layers}."
                )
        evaluated = Mesh().over(section.mesh or Mesh())
        phases.append(
            Phase(first, last, meshes, evaluated, training, optimizer, model, shapes, enter)
        )
    return Phases(phases)


def weight_shapes(model: Model) -> list[tuple[int, ...]]:
    """The shapes of the weights of a model, in order."""
    return [x.shape for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


def check_without_data(config: Config) -> None:
    """Makes what a run needs besides its data: its parts, and from shapes its equations on the
    layers of each phase, with the state of the optimizer.

    **Raises:** `InputError` for a kind of model that cannot learn the data, arguments of
    operators, controls and schemes that do not fit, layers that the model cannot grow to, and
    groups of rates that name no weight.
    """
    model = config.model
    if model.run is None and model.checkpoint != "newest":
        key = model.key / "checkpoint"
        raise ConfigError(f"{key}={model.checkpoint}: model.pretrained must be a run.")
    training = config.training
    costs = [cost.spec for cost in training.costs.values()]
    for spec in (training.gradient, training.growth, *costs):
        spec.make()
    if model.pretrained is not None:
        return
    # Groups of inputs and read-outs name weights that depend on the data.
    groups = {
        name: factor
        for name, factor in config.optimizer.groups.items()
        if name.partition(".")[0] in ("control", "constraint", "solver")
    }
    config = config.changed("optimizer", groups=groups)
    needs = needs_of(config, {})

    def check(key: PRNGKeyArray) -> None:
        for equation in config.equations:
            needs.check_kind(equation.model)
            build = ft.partial(build_without_data, equation, needs.causal, key)
            make_phases(config, build_first_model(config, build))

    # A class that reads the values of its arrays is checked when the model is built.
    unreadable = jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError
    with contextlib.suppress(*unreadable):
        jax.eval_shape(check, jax.random.key(0))
