"""The meshes of a run: those of each phase, and the one that a step draws."""

import bisect
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from ...errors import at
from ...integration import Mesh
from ...models import Model, functional
from ...tasks import AbstractTask
from ..configuration.config import Config
from ..configuration.key import Key


@dataclasses.dataclass(frozen=True)
class ScheduledMesh:
    """A mesh of `training.schedule`. Meshes with equal numbers are equal.

    - `mesh`: the mesh on which the weights are solved.
    - `layers`: the layers of the weights; `None` if they never change in the run.
    - `odds`: how often it is drawn, in proportion to the other meshes of its phase.
    - `key`: the key of the configuration that describes it.
    """

    mesh: Mesh
    layers: int | None
    odds: float = dataclasses.field(compare=False)
    key: Key = dataclasses.field(compare=False)

    def __str__(self) -> str:
        layers = {} if self.layers is None else {"layers": self.layers}
        return _in_braces(layers | self.mesh.described)

    def adapt_model(self, model: Model) -> Model:
        """The model on this mesh, with the tokens of its inputs."""
        with at(self.key, _in_braces(self.mesh.described)):
            return model_on(model, dataclasses.replace(self.mesh, tokens=None))

    def adapt_task(self, task: AbstractTask) -> AbstractTask:
        """The task with the tokens of this mesh."""
        with at(self.key / "tokens", str(self.mesh.tokens)):
            return task.on(Mesh(tokens=self.mesh.tokens))


def scheduled_meshes(config: Config) -> list[tuple[ScheduledMesh, ...]]:
    """The meshes of each phase of a run."""
    training = config.training
    phases = []
    for i, phase in enumerate(training.phases):
        key = training.key / "schedule" / i
        layers = (phase.layers or config.model.layers) if training.refines else None
        meshes = {key / "meshes" / j: mesh for j, mesh in enumerate(phase.meshes)}
        if not meshes:
            # The weights themselves have the layers of this mesh.
            meshes = {key / "mesh": dataclasses.replace(phase.mesh or Mesh(), layers=None)}
        odds = phase.weights or (1.0,) * len(meshes)
        pairs = zip(meshes.items(), odds, strict=True)
        phases.append(tuple(ScheduledMesh(mesh, layers, x, key) for (key, mesh), x in pairs))
    return phases


def mesh_drawer(config: Config) -> Callable[[int], ScheduledMesh]:
    """Returns a function that draws the mesh after a number of steps, by the seed of the run
    and that number."""
    training = config.training
    phases = scheduled_meshes(config)
    most = max(map(len, phases))

    def draw_mesh(step: int) -> ScheduledMesh:
        meshes = phases[bisect.bisect(training.begins, step) - 1]
        if len(meshes) == 1:
            return meshes[0]
        odds = np.array([mesh.odds for mesh in meshes])
        random = np.random.default_rng([training.seed, step, most])
        return meshes[random.choice(len(meshes), p=odds / odds.sum())]

    return draw_mesh


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


def _in_braces(fields: Mapping[str, object]) -> str:
    """The fields of a mesh, as a configuration writes them."""
    return f"{{{', '.join(f'{name}: {x}' for name, x in fields.items())}}}"
