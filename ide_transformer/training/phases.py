"""Meshes of a run: those that are drawn in training, so that one set of weights serves all of
them, and phases, the steps between two refinements in depth, see `training.refine`."""

import dataclasses
import functools as ft
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from ..dynamics import keep_layers
from ..errors import InputError, at
from ..models import Mesh, Model, functional
from ..tasks import AbstractLoss, AbstractTask, Batch
from .build import solver_of, weight_shapes, with_intervals
from .config import Config, MeshSection, TrainingConfig, refinements
from .optimizer import build_optimizer, path_of
from .parallel import Layout
from .step import (
    TrainState,
    initial_state,
    make_evaluation,
    make_train_step,
    moving_average,
    objective,
)


# How a model comes to fewer intervals: θ(t) is resampled, or some of its layers are kept.
Layers = Literal["resampled", "spread", "first"]


def mesh_maps(meshes: Mapping[str, MeshSection]) -> list[Callable[[Model], Model]]:
    """For each mesh, by its key, the map from the model to the same model on it."""
    return [ft.partial(_model_on, section=mesh, key=key) for key, mesh in meshes.items()]


def mesh_tasks(meshes: Mapping[str, MeshSection], task: AbstractTask) -> list[AbstractTask]:
    """For each mesh, by its key, the data with as many tokens as it has."""
    tasks = []
    for key, mesh in meshes.items():
        with at(f"{key}.tokens={mesh.tokens}"):
            tasks.append(task.on(Mesh(tokens=mesh.tokens)))
    return tasks


def drawn_mesh(training: TrainingConfig, step: int) -> int:
    """The index of the mesh of a step, from 0 on: a function of the seed and the step alone."""
    meshes = training.meshes
    if len(meshes) < 2:
        return 0
    weights = np.array([mesh.weight * (mesh.after <= step) for mesh in meshes])
    random = np.random.default_rng([training.seed, step, len(meshes)])
    return int(random.choice(len(meshes), p=weights / weights.sum()))


def model_on(model: Model, mesh: Mesh, layers: Layers = "resampled") -> Model:
    """A model on a mesh, `model.on(mesh)`; if the mesh gives a width, its weights are taken as
    functions of the features. With `layers` "spread" evenly, or the "first" ones, its intervals
    are so many layers of the model, each with its own step: for one that was trained with
    `LayerDrop`, or to be read out after each."""

    def kept(model: Model) -> Model:
        number, own = mesh.intervals, model.control.num_intervals
        if number is None or number > own:
            raise InputError(
                f"layers={layers}: the model has {own} to keep, and intervals={number}."
            )
        spread = [i * own // number for i in range(number)]
        return keep_layers(model, spread if layers == "spread" else range(number))

    if layers == "resampled":
        return (model if mesh.width is None else functional(model)).on(mesh)
    return model_on(model.each_equation(kept), dataclasses.replace(mesh, intervals=None))


def mesh_of(section: MeshSection, model: Model, key: str) -> Mesh:
    """The mesh that a section describes at `key`, for this model. A scheme with weights is
    refused, since nothing would train them."""
    given = section.model_dump(exclude_none=True, include={*Mesh().__dataclass_fields__})
    if section.solver is not None:
        steps = model.discretization.steps_per_interval
        given["solver"] = solver_of(f"{key}.solver", section.solver, model, steps)
        if jax.tree.leaves(eqx.filter(given["solver"], eqx.is_inexact_array)):
            raise InputError(
                f"{key}.solver={section.solver}: it has weights, which would not be trained; "
                "take a scheme without, or make it the solver of the run."
            )
    return Mesh(**given)


def _model_on(model: Model, *, section: MeshSection, key: str) -> Model:
    """Put a model on a mesh. Gradient mode and precision stay."""
    mesh = mesh_of(section, model, key)
    written = ", ".join(f"{name}: {x}" for name, x in mesh.described.items())
    with at(f"{key}={{{written}}}"):
        # The inputs say their number of tokens.
        return model_on(model, dataclasses.replace(mesh, tokens=None))


@dataclasses.dataclass(frozen=True, eq=False)
class Phase:
    """Steps of a run whose weights have the same shapes: all, where it is not refined.

    - `first`, `last`: the numbers of steps taken before it and at its end.
    - `meshes`: those of which one is drawn for each step, by their keys.
    - `shapes`: of the state of training, also after the last step.
    - `enter`: the first state, from the last one of the phase before, if there is one.
    """

    training: TrainingConfig
    optimizer: optax.GradientTransformation
    first: int
    last: int
    meshes: Mapping[str, MeshSection]
    model: Model
    shapes: TrainState
    enter: Any = None

    @property
    def static(self) -> PyTree:
        """The parts of the model that are no weights."""
        return eqx.filter(self.model, eqx.is_inexact_array, inverse=True)

    @property
    def described(self) -> str:
        """The mesh of a refined run, in words."""
        (mesh,) = self.meshes.values()
        intervals = {"intervals": self.model.control.num_intervals}
        given = intervals | mesh.model_dump(exclude_none=True)
        return ", ".join(f"{number} {name}" for name, number in given.items())

    @ft.cached_property
    def evaluate(self) -> Callable[..., dict[str, float]]:
        """See `make_evaluation`."""
        return make_evaluation(self.static, self.solved)

    def solved(self, model: Model) -> Model:
        """The model of the phase with the scheme and the steps of the mesh of a refined run."""
        if not self.training.refine:
            return model
        ((key, mesh),) = self.meshes.items()
        others = {"horizon": None, "tokens": None, "width": None}
        return _model_on(model, section=mesh.model_copy(update=others), key=key)

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
            for mesh in mesh_maps(self.meshes)
        ]

    def on_meshes(self, task: AbstractTask) -> Iterator[tuple[Callable[[Model], Model], Batch]]:
        """For each mesh the map of the model to it, and a first batch."""
        return zip(mesh_maps(self.meshes), self.first_batches(task), strict=True)

    def first_batches(self, task: AbstractTask) -> list[Batch]:
        """A first batch for each mesh, with the shapes of all that follow."""
        size, seed = self.training.batch_size, self.training.seed
        return [data.batch(0, size, seed) for data in mesh_tasks(self.meshes, task)]

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
    """The state before the first step of a run, and its phases, see `phases_of`."""
    phases, average = phases_of(config, model), config.training.average
    return initial_state(model, phases[0].optimizer, key, average=average)[0], phases


def phases_of(config: Config, model: Model) -> list[Phase]:
    """The phases of a run from its `first_model`, which may have shapes for arrays."""
    training = config.training
    optimizer = build_optimizer(config.optimizer, training.steps)

    def start(model: Model) -> TrainState:
        return initial_state(model, optimizer, jax.random.key(0), average=training.average)[0]

    shapes, enter = eqx.filter_eval_shape(start, model), None
    phases: list[Phase] = []
    begins, refine = training.begins, [*training.refine.values()]
    for number, first in enumerate(begins):
        last, meshes = (*begins[1:], training.steps)[number], training.meshes_after(first)
        if number:
            intervals = refine[number].intervals or config.model.depth
            resample = ft.partial(
                resample_state,
                optimizer=optimizer,
                average=training.average,
                static=phases[-1].static,
                num_intervals=intervals,
            )
            model, enter = _next_model(config, model, intervals), jax.jit(resample)
            shapes = jax.eval_shape(enter, shapes)
        phases.append(Phase(training, optimizer, first, last, meshes, model, shapes, enter))
    return phases


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase whose shapes a state after so many steps has."""
    return next((phase for phase in phases if step <= phase.last), phases[-1])


def shapes_at(phases: Sequence[Phase], step: int) -> TrainState:
    """The shapes of a state after so many steps."""
    return phase_at(phases, step).shapes


def _next_model(config: Config, model: Model, intervals: int) -> Model:
    """The model on the next mesh of `training.refine`, which has to divide layers."""
    before = model.control.num_intervals
    new = with_intervals(config, model, intervals)
    if intervals % before and weight_shapes(new) != weight_shapes(model):
        dividing = [str(n) for n in range(1, intervals) if intervals % n == 0]
        raise InputError(
            f"training.refine={refinements(config.training.refine)}: {before} intervals of "
            f"{type(model.control).__name__} cannot become {intervals} of equal parts; write "
            f"{', '.join(dividing)} in the place of {before}."
        )
    return new


# How often the gradient is a factor of what an optimizer keeps of a weight, by the name that
# optax gives it: a mean of gradients, a mean of their squares, another value of the weight.
_DEGREES = {"mu": 1, "nu": 2, "z": 0, "ema": 0}


def resample_state(
    state: TrainState,
    *,
    optimizer: optax.GradientTransformation,
    static: PyTree,
    num_intervals: int,
    average: float = 0.0,
) -> TrainState:
    """The state of training with the weights, and all that the optimizer keeps of each, on
    another number of intervals.

    A weight of one of n intervals acts over a depth of T/n, and its gradient is in proportion:
    where a weight becomes several, means of gradients are divided by their number and means of
    squares by its square, so that the next update is as large as it would have been.
    """

    def resample(weights: PyTree[Array]) -> PyTree[Array]:
        model = eqx.combine(weights, static).on(Mesh(intervals=num_intervals))
        return eqx.filter(model, eqx.is_inexact_array)

    before = eqx.combine(state.weights, static).control.num_intervals
    weights = resample(state.weights)
    kept = state.optimizer, state.average
    leaves = _resampled_optimizer(kept, state.weights, resample, before / num_intervals)
    # The trees of weights in it are now those of another mesh.
    shapes = jax.eval_shape(
        lambda weights: (optimizer.init(weights), moving_average(average).init(weights)),
        weights,
    )
    optimizer_state, mean = jax.tree.structure(shapes).unflatten(leaves)
    return dataclasses.replace(state, weights=weights, optimizer=optimizer_state, average=mean)


def _resampled_optimizer(
    state: PyTree, weights: PyTree[Array], resample: Callable, shorter: float
) -> list[Array]:
    """The arrays of the state of an optimizer, in which each tree of the kind of the weights is
    kept of them, or of some where the others are masked. Intervals get `shorter` so much."""
    own, structure = jax.tree.flatten(weights)
    leaves: list[Array] = []
    parts = jax.tree.leaves_with_path(state, is_leaf=lambda x: type(x) is type(weights))
    for path, part in parts:
        if type(part) is not type(weights):
            leaves.append(part)
            continue
        degree = _DEGREES[path_of(path).rpartition(".")[2]]
        kept = jax.tree.leaves(part, is_leaf=_masked)
        whole = [jnp.zeros_like(x) if _masked(y) else y for x, y in zip(own, kept, strict=True)]
        new = jax.tree.leaves(resample(structure.unflatten(whole)))
        for x, y in zip(kept, new, strict=True):
            if not _masked(x):
                # A map with negative weights would leave the range of a mean of squares.
                scaled = shorter**degree * (jnp.maximum(y, 0) if degree == 2 else y)
                leaves.append(x if x.shape == y.shape else scaled)
    return leaves


def _masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)
