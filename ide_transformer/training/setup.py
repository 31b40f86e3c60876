"""Builds the objects of a run from its configuration, before anything is written."""

import contextlib
import functools as ft
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ..equation import merge_low_rank
from ..errors import ConfigError, at, short
from ..models import Model
from ..tasks import AbstractTask, Loss
from .configuration.config import Config
from .configuration.training import TrainingConfig
from .folder.loading import checksum_of_weights, restore_model
from .folder.metrics import say
from .folder.run_folder import RunFolder, changed_values, same_tokenizer
from .steps.build import build_model, build_task, with_lora, with_solver
from .steps.layout import Layout, make_layout
from .steps.phases import (
    Phases,
    build_first_model,
    check_without_data,
    make_phases,
    weight_shapes,
)
from .trackers import AbstractTracker


# Keys in which a run may differ from the run whose weights it takes, if weights keep their
# shapes.
_FREE = {"context", "width", "layers", "dropout", "run", "checkpoint", "horizon"}


class Setup(NamedTuple):
    """The objects of a run.

    - `config`: the values that are written, compared and resumed.
    - `model`: the model of the first phase, with its first weights.
    - `key`: the random key of the steps.
    - `objective`: what a step minimises, the loss of the task with running costs.
    - `layout`: the devices.
    - `origin`: the checksum of weights that are not drawn, and the number and the step of the
      run that they come from; else `None`.
    """

    config: Config
    task: AbstractTask
    model: Model
    key: PRNGKeyArray
    objective: Callable[..., Loss]
    phases: Phases
    layout: Layout
    trackers: Sequence[AbstractTracker]
    origin: dict[str, Any] | None

    @property
    def training(self) -> TrainingConfig:
        """The numbers of the section `training`."""
        return self.config.training

    def check_shapes(self) -> None:
        """Traces the loss of each phase on each of its meshes.

        **Raises:** `InputError` if devices, data, model and meshes do not fit together.
        """
        training = self.training
        meshes = [mesh.mesh for phase in self.phases for mesh in phase.meshes]
        self.layout.check_divides(training.part_size, self.model, meshes)
        for phase in self.phases:
            for mesh in phase.meshes:
                task = mesh.adapt_task(self.task)
                batch = task.batch(0, training.batch_size, training.seed)
                model = mesh.adapt_model(phase.model)
                with at(mesh.key) if training.schedule else contextlib.nullcontext():
                    eqx.filter_eval_shape(self.objective, model, batch)


def setup(
    config: Config, task: AbstractTask | None = None, *, resumed: RunFolder | None = None
) -> Setup:
    """Builds the objects of a run.

    **Arguments:**

    - `task`: the task of the configuration, if its data are already read.
    - `resumed`: the folder of a run that has a checkpoint. It has its own weights and
      tokenizer, so none are taken from `model.run`.

    **Raises:** `InputError` for values that do not fit together.
    """
    training = config.training
    trackers = [tracker.make() for tracker in training.trackers]
    layout = make_layout(config.parallel)
    if task is None:
        check_without_data(config)
        say(f"{config.name}: reading the data, data.name={short(config.data.name)}")
        # A run that took weights has their tokenizer, whatever became of the other run.
        tokenizer = resumed.load_tokenizer() if resumed and config.model.run else None
        task = build_task(config, tokenizer)
    model_key, key = jax.random.split(jax.random.key(training.seed))
    model = build_first_model(config, ft.partial(build_model, config, task, model_key))
    origin = {}
    if config.model.run is not None and resumed is None:
        model, origin = take_weights(config, task, model)
    if origin or config.model.pretrained is not None:
        origin["weights"] = checksum_of_weights(model)
    model = model.with_gradient(training.gradient.make()).with_precision(training.precision)
    costs = {name: cost.spec.make() for name, cost in training.costs.items()}
    return Setup(
        config=config,
        task=task,
        model=model,
        key=key,
        objective=ft.partial(task.loss, costs=costs),
        phases=make_phases(config, model),
        layout=layout,
        trackers=trackers,
        origin=origin or None,
    )


def take_weights(
    config: Config, task: AbstractTask, model: Model
) -> tuple[Model, dict[str, Any]]:
    """Gives a model the weights of the run `model.run`. Also returns the number and the step of
    the run.

    **Raises:** `InputError` if the run has other tokens, or weights of other shapes.
    """
    assert config.model.run is not None
    run = RunFolder(config.model.run, trust=config)
    run_config = run.load_config()
    changes = {
        text.partition(":")[0].rpartition(".")[2]: text
        for text in changed_values(run_config, config)
        if text.startswith(("model.", "control.")) and not text.startswith("model.lora")
    }
    key = f"{config.model.key / 'pretrained'}={run.path}"
    if wrong := [text for name, text in changes.items() if name not in _FREE]:
        raise ConfigError(f"{key} sets the model; drop what differs ({'; '.join(wrong)}).")
    if not same_tokenizer(run, task):
        raise ConfigError(f"{key}: data.name={config.data.name} has other tokens.")
    trained, step = restore_model(run, run_config, config.model.checkpoint, "trained")
    if config.model.lora != run_config.model.lora:
        lora_key = jax.random.key(config.training.seed)
        trained = with_lora(merge_low_rank(trained), config.model.lora, lora_key)
    if config.solver != run_config.solver:
        trained = with_solver(trained, config.solver)
    fits = weight_shapes(trained) == weight_shapes(model)
    if not fits and trained.layers < run_config.model.layers:
        raise ConfigError(
            f"{key} has {trained.layers} layers at that step; set model.layers="
            f"{trained.layers} and control.horizon={trained.control.horizon:g}."
        )
    if not fits:
        free = [text for name, text in changes.items() if name not in ("run", "checkpoint")]
        differ = "; ".join(free) or f"the sizes of the data, here {task.sizes}"
        raise ConfigError(f"{key}: its weights do not fit; drop what differs ({differ}).")
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    leaves = jax.tree.leaves(eqx.filter(trained, eqx.is_inexact_array))
    combined = eqx.combine(jax.tree.structure(weights).unflatten(leaves), static)
    return combined, {"run": run.identity, "step": step}
