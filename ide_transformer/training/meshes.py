"""Meshes in depth, and numbers of tokens and features, that are drawn in training, so that one
set of weights serves all of them."""

import functools as ft
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..errors import InputError
from ..models import AbstractModel, functional
from ..tasks import AbstractTask, Batch
from .build import SchemeSizes, build_solver
from .training_config import MeshConfig, TrainingConfig


# By key of a mesh, in the order in which they are made.
_CHANGES: dict[str, Callable[[AbstractModel, Any], AbstractModel]] = {
    "horizon": lambda model, horizon: model.with_horizon(horizon),
    "width": lambda model, width: functional(model).at_width(width),
    "intervals": lambda model, intervals: model.at_depth(intervals),
}


def mesh_maps(training: TrainingConfig) -> list[Callable[[AbstractModel], AbstractModel]]:
    """For each mesh of a run the map from the model to the same model on it."""
    meshes = training.meshes or (MeshConfig(),)
    return [
        ft.partial(_on_mesh, mesh=mesh, key=f"training.meshes.{number}")
        for number, mesh in enumerate(meshes)
    ]


def mesh_tasks(training: TrainingConfig, task: AbstractTask) -> list[AbstractTask]:
    """For each mesh of a run the data with as many tokens as it has.

    **Raises:** `InputError` that begins with the key, where there are none.
    """
    tasks = []
    for number, mesh in enumerate(training.meshes or (MeshConfig(),)):
        try:
            tasks.append(task if mesh.context is None else task.at_context(mesh.context))
        except InputError as error:
            key = f"training.meshes.{number}.context={mesh.context}"
            raise InputError(f"{key}: {error}") from None
    return tasks


def first_batches(training: TrainingConfig, task: AbstractTask) -> list[Batch]:
    """For each mesh of a run a first batch, with the shapes of all that follow."""
    return [
        data.batch(0, training.batch_size, training.seed) for data in mesh_tasks(training, task)
    ]


def drawn_mesh(training: TrainingConfig, step: int) -> int:
    """The index of the mesh of a step, which counts from 0: a function of the seed and the
    step alone."""
    meshes = training.meshes
    if len(meshes) < 2:
        return 0
    weights = np.array([mesh.weight * (mesh.after <= step) for mesh in meshes])
    random = np.random.default_rng([training.seed, step, len(meshes)])
    return int(random.choice(len(meshes), p=weights / weights.sum()))


def _on_mesh(model: AbstractModel, *, mesh: MeshConfig, key: str) -> AbstractModel:
    """The same weights on a mesh. Gradient mode and precision stay.

    **Raises:** `InputError` that begins with the key, where there is no such mesh or scheme.
    """
    for name, change in _CHANGES.items():
        size = getattr(mesh, name)
        if size is not None:
            try:
                model = change(model, size)
            except InputError as error:
                raise InputError(f"{key}.{name}={size:g}: {error}") from None
    options: dict[str, Any] = {}
    if mesh.steps_per_interval is not None:
        options |= {"steps_per_interval": mesh.steps_per_interval, "stepsize_controller": None}
    if mesh.solver is not None:
        steps = mesh.steps_per_interval or model.discretization.steps_per_interval
        sizes = SchemeSizes.of(model, steps)
        options["solver"] = build_solver(f"{key}.solver", mesh.solver, sizes)
        if jax.tree.leaves(eqx.filter(options["solver"], eqx.is_inexact_array)):
            raise InputError(
                f"{key}.solver={mesh.solver}: it has weights, which would not be trained; take "
                "a scheme without, or make it the solver of the run."
            )
    return model.with_options(**options)
