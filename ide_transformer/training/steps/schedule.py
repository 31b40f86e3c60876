"""The phases of a run, each on one mesh, or on several of which each step draws one."""

import dataclasses
import functools as ft
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from ...errors import at
from ...integration import Mesh
from ...models import Model, functional
from ...tasks import AbstractTask
from ..configuration.config import Config
from ..configuration.key import Key


@dataclasses.dataclass(frozen=True)
class Phase:
    """Steps of a run whose weights have the same layers.

    - `first`, `last`: the numbers of steps taken before it and at its end.
    - `layers`: the layers of its weights; `None` if the layers never change in the run.
    - `meshes`: the meshes, by their keys. Each step draws one, with the given `odds`.
    - `evaluated`: the steps of evaluations, if they differ from the model's.
    - `key`: the key of the configuration that describes it.
    """

    first: int
    last: int
    layers: int | None
    meshes: Mapping[Key, Mesh]
    odds: tuple[float, ...] = (1.0,)
    evaluated: Mesh = Mesh()
    key: Key = Key("training.schedule")

    def name(self, mesh: int) -> str:
        """The mesh with this number, as a configuration writes it."""
        fields = {} if self.layers is None else {"layers": self.layers}
        fields |= [*self.meshes.values()][mesh].described
        return f"{{{', '.join(f'{name}: {x}' for name, x in fields.items())}}}"

    def __str__(self) -> str:
        return " or ".join(self.name(mesh) for mesh in range(len(self.meshes)))

    def models(self) -> list[Callable[[Model], Model]]:
        """For each mesh, the function that puts the model on it, with the inputs' tokens."""

        def on(model: Model, key: Key, mesh: Mesh) -> Model:
            fields = ", ".join(f"{name}: {x}" for name, x in mesh.described.items())
            with at(key, f"{{{fields}}}"):
                return model_on(model, dataclasses.replace(mesh, tokens=None))

        return [ft.partial(on, key=key, mesh=mesh) for key, mesh in self.meshes.items()]

    def tasks(self, task: AbstractTask) -> list[AbstractTask]:
        """For each mesh, the task with the tokens of the mesh."""
        tasks = []
        for key, mesh in self.meshes.items():
            with at(key / "tokens", str(mesh.tokens)):
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
    """The phases of a run."""
    training = config.training
    ends = itertools.pairwise((*training.begins, training.steps))
    phases = []
    for i, (phase, (first, last)) in enumerate(zip(training.phases, ends, strict=True)):
        key = training.key / "schedule" / i
        layers = (phase.layers or config.model.layers) if training.refines else None
        if phase.meshes:
            meshes = {key / "meshes" / i: mesh for i, mesh in enumerate(phase.meshes)}
            odds = phase.weights or (1.0,) * len(meshes)
            phases.append(Phase(first, last, layers, meshes, odds, key=key))
        else:
            # The weights themselves have the layers of the mesh.
            mesh = dataclasses.replace(phase.mesh or Mesh(), layers=None)
            evaluated = Mesh().over(mesh)
            phases.append(
                Phase(first, last, layers, {key / "mesh": mesh}, evaluated=evaluated, key=key)
            )
    return Schedule(phases)


def model_on(model: Model, mesh: Mesh) -> Model:
    """The model on a mesh, `model.on(mesh)`; with a width, of its `functional` model."""
    return (model if mesh.width is None else functional(model)).on(mesh)


def overrides_for_refinement(config: Config) -> list[str]:
    """The overrides that a run needs to begin with fewer layers, unless they are set. The rate
    must be high when the fine mesh begins. The solutions on both meshes must be close: the
    embedded input is projected, and paths are short."""
    model = config.model
    training = config.training
    has_all_layers = training.phases[0].layers in (None, model.layers)
    if has_all_layers or training.growth.name != "refinement":
        return []
    costs = {cost.kind for cost in training.costs.values() if cost.weight}
    overrides = []
    if config.optimizer.schedule == "cosine":
        overrides.append("optimizer.schedule=warmup_stable_decay")
    if model.input_normalization.name == model.constraint.name == "free":
        overrides.append("model.input_normalization=sphere")
    if "transport" not in costs:
        overrides.append("training.costs.transport=0.01")
    return overrides
