"""The schedule of a run: phases, each on one mesh, or on several of which a step draws one."""

import dataclasses
import functools as ft
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from ...errors import InputError, at
from ...integration import Mesh
from ...models import Model, functional
from ...tasks import AbstractLoss, AbstractTask, Batch, Mean, Part, averaged
from ..configuration.config import Config, TrainingConfig
from ..configuration.reader import read
from .build import objective
from .growth import AbstractGrowth, Refinement, grown_state
from .layout import Layout
from .optimizer import build_optimizer
from .step import TrainState, initial_state, make_train_step, require_samples


# Samples in a batch of an evaluation.
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps of a run whose weights have the same layers.

    - `first`, `last`: the numbers of steps taken before it and at its end.
    - `layers`: the layers of its weights; `None` if the layers never change in the run.
    - `meshes`: the meshes, by their keys. Each step draws one, with the given `odds`.
    - `evaluated`: the steps and the scheme of evaluations, if they differ from the model's.
    """

    first: int
    last: int
    layers: int | None
    meshes: Mapping[str, Mesh]
    odds: tuple[float, ...] = (1.0,)
    evaluated: Mesh = Mesh()

    def name(self, mesh: int) -> str:
        """The mesh with this number, as a configuration writes it."""
        given = {} if self.layers is None else {"layers": self.layers}
        given |= [*self.meshes.values()][mesh].described
        return f"{{{', '.join(f'{name}: {x}' for name, x in given.items())}}}"

    def __str__(self) -> str:
        return " or ".join(self.name(mesh) for mesh in range(len(self.meshes)))

    def models(self) -> list[Callable[[Model], Model]]:
        """For each mesh, the function that puts the model on it, with the inputs' tokens."""

        def on(model: Model, key: str, mesh: Mesh) -> Model:
            written = ", ".join(f"{name}: {x}" for name, x in mesh.described.items())
            with at(f"{key}={{{written}}}"):
                return model_on(model, dataclasses.replace(mesh, tokens=None))

        return [ft.partial(on, key=key, mesh=mesh) for key, mesh in self.meshes.items()]

    def tasks(self, task: AbstractTask) -> list[AbstractTask]:
        """For each mesh, the task with the tokens of the mesh."""
        tasks = []
        for key, mesh in self.meshes.items():
            with at(f"{key}.tokens={mesh.tokens}"):
                tasks.append(task.on(Mesh(tokens=mesh.tokens)))
        return tasks


class Schedule(tuple[Phase, ...]):
    """The phases of a run."""

    def at(self, step: int) -> Phase:
        """The phase of the state after `step` steps."""
        return next((phase for phase in self if step <= phase.last), self[-1])

    def drawn(self, seed: int, step: int) -> int:
        """The number of the mesh that is drawn after `step` steps, by the seed and the step."""
        odds = np.array(self.at(step + 1).odds)
        if len(odds) < 2:
            return 0
        most = max(len(phase.odds) for phase in self)
        random = np.random.default_rng([seed, step, most])
        return int(random.choice(len(odds), p=odds / odds.sum()))


def schedule_of(config: Config) -> Schedule:
    """The phases of a run, read from its configuration."""
    training = config.training
    ends = itertools.pairwise((*training.begins, training.steps))
    phases = []
    for number, (phase, (first, last)) in enumerate(zip(training.phases, ends, strict=True)):
        key = f"training.schedule.{number}"
        layers = (phase.layers or config.model.layers) if training.refines else None
        if phase.meshes:
            keys = [f"{key}.meshes.{i}" for i in range(len(phase.meshes))]
            meshes = {x: read_mesh(tree, x) for x, tree in zip(keys, phase.meshes, strict=True)}
            odds = phase.weights or (1.0,) * len(meshes)
            phases.append(Phase(first, last, layers, meshes, odds))
        else:
            key = f"{key}.mesh"
            # The weights themselves have the layers of the mesh.
            mesh = dataclasses.replace(read_mesh(phase.mesh or {}, key), layers=None)
            evaluated = Mesh(steps=mesh.steps, solver=mesh.solver)
            phases.append(Phase(first, last, layers, {key: mesh}, evaluated=evaluated))
    return Schedule(phases)


def read_mesh(tree: Mapping[str, Any], key: str) -> Mesh:
    """The mesh that a configuration describes at `key`. Its scheme may have no weights."""
    mesh = read(Mesh, tree, key)
    if jax.tree.leaves(eqx.filter(mesh.solver, eqx.is_inexact_array)):
        raise InputError(f"{key}.solver={tree['solver']}: it has weights that nothing trains.")
    return mesh


def model_on(model: Model, mesh: Mesh) -> Model:
    """The model on a mesh, `model.on(mesh)`; with a width, of its `functional` model."""
    return (model if mesh.width is None else functional(model)).on(mesh)


def needed_by_refinement(config: Config) -> list[str]:
    """The overrides that a run needs to begin with fewer layers, as far as the configuration
    does otherwise. The rate must be high when the fine mesh begins, and the solutions on both
    meshes must be close: the embedded input is projected, and paths are short."""
    model = config.model
    training = config.training
    same = (training.phases[0].layers or model.layers) == model.layers
    if same or not isinstance(growth_of(config), Refinement):
        return []
    costs = {cost.kind or name for name, cost in training.costs.items() if cost.weight}
    needed = []
    if config.optimizer.schedule == "cosine":
        needed.append("optimizer.schedule=warmup_stable_decay")
    if model.input_normalization == "free" and model.constraint == "free":
        needed.append("model.input_normalization=sphere")
    if "transport" not in costs:
        needed.append("training.costs.transport=0.01")
    return needed


def first_model(config: Config, build: Callable[[Config], Model]) -> Model:
    """The model with which a run begins. Its weights are drawn for the first phase, since the
    mean of the draws of several layers would be small."""
    model = build(config)
    layers = config.training.phases[0].layers
    if layers is None:
        return model
    growth = growth_of(config)
    with at(f"training.schedule: layers={layers}"):
        coarse = growth.coarse(model, layers)
    if not growth.averages or weight_shapes(coarse) == weight_shapes(model):
        return coarse
    return build(config.on_layers(layers))


def growth_of(config: Config) -> AbstractGrowth:
    return read(AbstractGrowth, config.training.growth, "training.growth")


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What a phase runs.

    - `model`: the model of the phase; only its parts without weights are used.
    - `shapes`: the shapes of the training state.
    - `enter`: from the last state of the phase before to the first; `None` for equal shapes.
    """

    phase: Phase
    training: TrainingConfig
    optimizer: optax.GradientTransformation
    model: Model
    shapes: TrainState
    enter: Any = None

    @property
    def static(self) -> PyTree:
        """The model without its weights."""
        return eqx.filter(self.model, eqx.is_inexact_array, inverse=True)

    def solved(self, model: Model) -> Model:
        """The model as evaluations of this phase solve it."""
        return model.on(self.phase.evaluated)

    @ft.cached_property
    def _figures(self) -> Callable[..., dict[str, Mean]]:
        static = self.static

        @jax.jit
        def figures(loss, weights, batch):
            return loss(self.solved(eqx.combine(weights, static)), batch).figures

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
                means = self._figures(task.loss, weights, layout.placed(batch))
                yield {**means, **task.further_means(batch, means["loss"])}

        means = task.loss.figures(require_samples(averaged(batches())))
        return {f"{part}_{name}": mean for name, mean in means.items()}

    def on_meshes(self, task: AbstractTask) -> Iterator[tuple[Callable[[Model], Model], Batch]]:
        """For each mesh, the function that puts the model on it, and a first batch."""
        training = self.training
        tasks = self.phase.tasks(task)
        batches = (x.batch(0, training.batch_size, training.seed) for x in tasks)
        return zip(self.phase.models(), batches, strict=True)

    def lowered(
        self, mesh: int, loss: AbstractLoss, layout: Layout, batch: Batch
    ) -> jax.stages.Lowered:
        """The training step on the mesh with this number, ready to be compiled for a batch."""
        step = make_train_step(
            self.optimizer,
            self.static,
            objective(loss, self.training),
            max_bad_steps=self.training.max_bad_steps,
            accumulate=self.training.accumulate,
            average=self.training.average,
            out_shardings=(layout.shardings(self.shapes), layout.whole()),
            solved=self.phase.models()[mesh],
        )
        return step.lower(layout.shapes(self.shapes), layout.shapes(batch))


class Programs(tuple[Program, ...]):
    """The programs of all phases of a run."""

    def start(self, model: Model, key: PRNGKeyArray) -> TrainState:
        """The state before the first step."""
        first = self[0]
        return initial_state(model, first.optimizer, key, average=first.training.average)[0]

    def at(self, step: int) -> Program:
        """The program of the state after `step` steps."""
        return next((x for x in self if step <= x.phase.last), self[-1])

    def shapes_at(self, step: int) -> TrainState:
        """The shapes of the state after `step` steps."""
        return self.at(step).shapes


def programs_of(config: Config, model: Model) -> Programs:
    """The programs of a run from its `first_model`, which may hold shapes instead of arrays."""
    training = config.training
    growth = growth_of(config)
    optimizer = build_optimizer(config.optimizer, training.steps)

    def start(model: Model) -> TrainState:
        return initial_state(model, optimizer, jax.random.key(0), average=training.average)[0]

    shapes = eqx.filter_eval_shape(start, model)
    programs: list[Program] = []
    for phase in schedule_of(config):
        enter = None
        layers = phase.layers
        if layers is not None and layers != model.layers:
            before = model
            enter = jax.jit(
                ft.partial(
                    grown_state,
                    growth=growth,
                    optimizer=optimizer,
                    average=training.average,
                    static=programs[-1].static,
                    layers=layers,
                )
            )
            with at(f"training.schedule: layers={layers}"):
                shapes = jax.eval_shape(enter, shapes)
                model = growth.grown(before, layers)
            if layers % before.layers and weight_shapes(model) != weight_shapes(before):
                dividing = [str(n) for n in range(1, layers) if layers % n == 0]
                what = f"training.schedule: {before.layers} layers cannot become {layers}"
                write = f"write {', '.join(dividing)} instead of {before.layers}"
                raise InputError(f"{what}; {write}.")
        programs.append(Program(phase, training, optimizer, model, shapes, enter))
    return Programs(programs)


def weight_shapes(model: Model) -> list[tuple[int, ...]]:
    return [x.shape for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]
