"""Starts and resumes runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ...errors import InputError
from ...models import LanguageModel, Model, is_built_as
from ...pretrained import find_pretrained
from ...tasks import AbstractTask, PretrainedTokenizer
from ...tasks.task import checksum_of_all
from ..configuration.config import Config
from ..configuration.files import apply_overrides, config_of
from ..configuration.section import validated
from ..steps.build import (
    build_model,
    build_model_of_size,
    build_task,
    with_solver,
    with_training,
)
from ..steps.optimizer import learning_rate
from ..steps.schedule import first_model, programs_of, weight_shapes
from .checkpoints import Checkpoints
from .loading import restored
from .run_folder import RunFolder, changed_values, new_folder, same_tokenizer


# Keys in which the model of a run may differ from that of the run whose weights it takes, where
# the weights keep their shapes.
_FREE = {"context", "width", "layers", "dropout", "layer_drop", "run", "checkpoint", "horizon"}


def import_pretrained(
    path: str | Path, name: str, runs: str | Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """A run from a checkpoint, `runs/name` at step 0: the weights of a language model and its
    tokenizer, or of a model of images; solved by its native scheme. `overrides` are further
    keys of its configuration, `key=value`; a model of images needs `data.name`, and `data.path`
    where the data are in a folder. `InputError` for a checkpoint of another kind than the data
    need.
    """
    found = find_pretrained(path)
    # A path is kept whole, so that the run can be read from anywhere.
    kept = str(found.resolve()) if Path(path).exists() else str(path)
    runs = Path(runs)
    tree: dict[str, Any] = {"name": name, "model": {"pretrained": kept}}
    origin = apply_overrides(tree, overrides)
    config = config_of(tree, f"{runs / name}", origin)
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {}, key)
    if is_built_as(model, LanguageModel) and "model.context" not in origin:
        # Its data are texts that the model can take.
        context = min(config.model.context, model.inputs.context)
        config = config.changed("model", context=context)
    state = programs_of(config, model).start(model, key)

    def save(tokenizer: Path) -> None:
        if is_built_as(model, LanguageModel):
            PretrainedTokenizer.from_pretrained(found).save(tokenizer)

    folder = new_folder(config, runs, save)
    with folder.sole_use(), Checkpoints(folder, config, writes=True) as checkpoints:
        checkpoints.save(0, state)
    return folder


class Start(NamedTuple):
    """The model and the key with which the training of a run starts.

    - `origin`: a checksum of the weights where they are those of a run or a checkpoint, and of
      a run its number and the step; else `None`.
    """

    model: Model
    key: PRNGKeyArray
    origin: dict[str, Any] | None


def build_start(
    config: Config, begun: RunFolder | None = None
) -> tuple[AbstractTask, Model, PRNGKeyArray, dict[str, Any] | None]:
    """The task with which the training of a run starts, and its `Start`. One that is `begun`
    asks no other run for tokenizer and weights."""
    task = build_task(config, None if begun is None else begun.known_tokenizer)
    start = starting_model(config, task, drawn=begun is not None)
    return task, start.model, start.key, start.origin


def starting_model(config: Config, task: AbstractTask, *, drawn: bool = False) -> Start:
    """The start of a run on these data; its weights are `drawn` also where those of another run
    are asked for."""
    model_key, key = jax.random.split(jax.random.key(config.training.seed))
    model = first_model(config, lambda config: build_model(config, task, model_key))
    origin: dict[str, Any] = {}
    if config.model.run is not None and not drawn:
        run = RunFolder(config.model.run)
        model, step = _with_weights_of_run(config, task, model, run)
        origin = {"run": run.identity, "step": step}
    if origin or config.model.pretrained is not None:
        origin["weights"] = checksum_of_weights(model)
    return Start(with_training(model, config.training), key, origin or None)


def checksum_of_weights(model: Model) -> str:
    """A short checksum of the weights of a model."""
    return checksum_of_all(eqx.filter(model, eqx.is_inexact_array))[:16]


def _with_weights_of_run(
    config: Config, task: AbstractTask, model: Model, run: RunFolder
) -> tuple[Model, int]:
    """The model with the weights of a run, and the step of these."""
    own = run.load_config(config)
    changed = {
        text.partition(":")[0].rpartition(".")[2]: text
        for text in changed_values(own, config)
        if text.startswith(("model.", "control."))
    }
    begins = f"model.pretrained={run.path}: "
    if wrong := [text for key, text in changed.items() if key not in _FREE]:
        raise InputError(f"{begins}it gives the model; drop what differs ({'; '.join(wrong)}).")
    if not same_tokenizer(run, task):
        raise InputError(
            f"{begins}the tokens of data.name={config.data.name} are not those of the run; "
            "take data that are read with its tokenizer."
        )
    there, step = restored(run, own, config.model.checkpoint, "trained")
    if config.solver != own.solver:
        there = with_solver(there, config.solver)
    fits = weight_shapes(there) == weight_shapes(model)
    if not fits and there.layers < own.model.layers:
        raise InputError(
            f"{begins}model.checkpoint={config.model.checkpoint} has {there.layers} layers "
            f"(training.schedule), and model.layers={config.model.layers}. Take a later one, "
            f"or write model.layers={there.layers} and "
            f"control.horizon={there.control.horizon:g}."
        )
    if not fits:
        free = [text for key, text in changed.items() if key not in ("run", "checkpoint")]
        raise InputError(
            f"{begins}its weights do not fit the model; drop what differs ("
            f"{'; '.join(free) or f'the sizes of the data, here {task.sizes}'})."
        )
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    taken = jax.tree.leaves(eqx.filter(there, eqx.is_inexact_array))
    combined = eqx.combine(jax.tree.structure(weights).unflatten(taken), static)
    return combined, step


def configuration_of(folder: RunFolder, config: Config, *, restart: bool) -> Config:
    """The configuration by which a run goes on, see `train`. It writes nothing."""
    own = folder.load_config(config)
    steps = config.training.steps
    before = own.training.steps
    if not config.optimizer.restarts:
        config = config.changed("optimizer", restarts=own.optimizer.restarts)
    config = config.model_copy(update={"training": config.training.scheduled_as(own.training)})
    free = {key: getattr(own.training, key) for key in own.training.FREE}
    others = changed_values(own, config.changed("training", **free, steps=before))
    if others or steps < before:
        raise InputError(
            f"--resume: {folder.path} was started with another configuration "
            f"({'; '.join(changed_values(own, config))}). Give the same one, with as many "
            "training.steps or more, or start a new run without --resume."
        )
    if steps == before and not restart:
        return config
    # Its phases end, or ended, at the same steps, not at later ones.
    config = config.changed("training", schedule=own.training.schedule_in_steps)
    made = folder.newest_step or 0
    rate = learning_rate(own.optimizer, before)
    longer = learning_rate(config.optimizer, steps)
    numbers = jnp.arange(made)
    same = np.asarray(rate(numbers)) == np.asarray(longer(numbers))
    if same.all() and restart:
        raise InputError(
            f"--restart: {folder.path} has made {made} steps, with the learning rates of a run "
            f"of training.steps={steps}; drop it, or give more training.steps."
        )
    if same.all():
        return config
    now = np.asarray(rate(made)).item()
    possible = own.optimizer.schedule == "cosine" and now > 0
    if restart and possible:
        tree = config.model_dump(mode="json")
        tree["optimizer"]["restarts"] = {**own.optimizer.restarts, made: before}
        return validated(Config, tree, "--restart")
    cosine = f"Give --restart, so that another cosine falls from {now:.2g}, its rate now; or s"
    raise InputError(
        f"training.steps={steps}: {folder.path} has made {made} steps of {before}, and from "
        f"step {np.argmin(same) + 1} on at other learning rates than a run of {steps} steps "
        f"(optimizer.schedule={own.optimizer.schedule}). {cosine if possible else 'S'}tart a "
        f"new run with its weights, model.pretrained={folder.path}, and a schedule of its own."
    )
