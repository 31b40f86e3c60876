"""Meshes in depth, and numbers of tokens and features, that are drawn in training, so that one
set of weights serves all of them."""

import dataclasses
import functools as ft
from collections.abc import Callable, Mapping
from typing import Literal

import equinox as eqx
import jax
import numpy as np

from ..dynamics import keep_layers
from ..errors import InputError
from ..models import Mesh, Model, functional
from ..tasks import AbstractTask
from .build import solver_of
from .config import MeshSection, TrainingConfig


# How a model comes to fewer intervals: θ(t) is resampled, or some of its layers are kept.
Layers = Literal["resampled", "spread", "first"]


def mesh_maps(meshes: Mapping[str, MeshSection]) -> list[Callable[[Model], Model]]:
    """For each mesh, by its key, the map from the model to the same model on it."""
    return [ft.partial(_model_on, section=mesh, key=key) for key, mesh in meshes.items()]


def mesh_tasks(meshes: Mapping[str, MeshSection], task: AbstractTask) -> list[AbstractTask]:
    """For each mesh, by its key, the data with as many tokens as it has."""
    tasks = []
    for key, mesh in meshes.items():
        try:
            tasks.append(task.on(Mesh(tokens=mesh.tokens)))
        except InputError as error:
            raise InputError(f"{key}.tokens={mesh.tokens}: {error}") from None
    return tasks


def drawn_mesh(training: TrainingConfig, step: int) -> int:
    """The index of the mesh of a step, which counts from 0: a function of the seed and the
    step alone."""
    meshes = training.meshes
    if len(meshes) < 2:
        return 0
    weights = np.array([mesh.weight * (mesh.after <= step) for mesh in meshes])
    random = np.random.default_rng([training.seed, step, len(meshes)])
    return int(random.choice(len(meshes), p=weights / weights.sum()))


def model_on(model: Model, mesh: Mesh, layers: Layers = "resampled") -> Model:
    """`model.on(mesh)`; where the mesh gives a width, that of its weights as functions of the
    features. With `layers` "spread" evenly, or the "first" ones, its intervals are so many
    layers of the model, each with its own step: for one that was trained with `LayerDrop`, or
    to be read out after each."""

    def kept(model: Model) -> Model:
        number, own = mesh.intervals, model.control.num_intervals
        if number is None or number > own:
            raise InputError(
                f"layers={layers}: the model has {own} of them to keep, or fewer, and the mesh "
                f"gives intervals={number}."
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
    try:
        # The inputs say their number of tokens.
        return model_on(model, dataclasses.replace(mesh, tokens=None))
    except InputError as error:
        written = ", ".join(f"{name}: {x}" for name, x in mesh.described.items())
        raise InputError(f"{key}={{{written}}}: {error}") from None
