"""Starts and resumes runs; restores models from their checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ...errors import InputError
from ...models import STATISTICS, LanguageModel, Model, is_built_as
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
    causal,
    task_class,
    with_solver,
    with_training,
)
from ..steps.optimizer import learning_rate
from ..steps.schedule import first_model, programs_of, weight_shapes
from ..steps.step import Weights, weights_of
from .checkpoints import Checkpoints, Which
from .run_folder import RunFolder, changed_values, new_folder, same_tokenizer


# Keys of the model in which a run may differ from the run whose weights it takes, as long as
# the weights keep their shapes.
_FREE = {"context", "width", "layers", "dropout", "layer_drop", "run", "checkpoint", "horizon"}


def import_pretrained(
    path: str | Path, name: str, runs: str | Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """Makes a run at step 0 from a checkpoint, in `runs/name`, with the weights and the scheme
    of the checkpoint, and the tokenizer of a language model.

    **Arguments:**

    - `path`: what `load_pretrained` takes.
    - `overrides`: further keys of its configuration, `key=value`. A model of images needs
      `data.name`, and `data.path` if the data are in a folder.

    **Raises:** `InputError` if the data need a model of another kind.
    """
    found = find_pretrained(path)
    # A path is stored whole, so that the run can be read from any folder.
    kept = str(found.resolve()) if Path(path).exists() else str(path)
    runs = Path(runs)
    tree: dict[str, Any] = {"name": name, "model": {"pretrained": kept}}
    origin = apply_overrides(tree, overrides)
    config = config_of(tree, f"{runs / name}", origin)
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {}, key)
    if is_built_as(model, LanguageModel) and "model.context" not in origin:
        # The model must be able to take the windows of its data.
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
    """The start of a run.

    - `origin`: `None` if its weights are drawn; else a checksum of the weights, and the number
      and the step of the run that they are from.
    """

    task: AbstractTask
    model: Model
    key: PRNGKeyArray
    origin: dict[str, Any] | None


def build_start(config: Config, begun: RunFolder | None = None) -> Start:
    """The start of a run. A run that is `begun` has its own tokenizer and weights and takes
    none from another run."""
    task = build_task(config, None if begun is None else begun.known_tokenizer)
    return starting_model(config, task, drawn=begun is not None)


def starting_model(config: Config, task: AbstractTask, *, drawn: bool = False) -> Start:
    """The start of a run on this task. `drawn` draws the weights even if the configuration
    names a run to take them from."""
    model_key, key = jax.random.split(jax.random.key(config.training.seed))
    model = first_model(config, lambda config: build_model(config, task, model_key))
    origin: dict[str, Any] = {}
    if config.model.run is not None and not drawn:
        run = RunFolder(config.model.run)
        model, step = _with_weights_of_run(config, task, model, run)
        origin = {"run": run.identity, "step": step}
    if origin or config.model.pretrained is not None:
        origin["weights"] = checksum_of_weights(model)
    return Start(task, with_training(model, config.training), key, origin or None)


def checksum_of_weights(model: Model) -> str:
    """A short checksum of the weights of a model."""
    return checksum_of_all(eqx.filter(model, eqx.is_inexact_array))[:16]


def _with_weights_of_run(
    config: Config, task: AbstractTask, model: Model, run: RunFolder
) -> tuple[Model, int]:
    """The model with the weights of a run, and the step of the weights."""
    own = run.load_config(config)
    changed = {
        text.partition(":")[0].rpartition(".")[2]: text
        for text in changed_values(own, config)
        if text.startswith(("model.", "control."))
    }
    begins = f"model.pretrained={run.path}"
    if wrong := [text for key, text in changed.items() if key not in _FREE]:
        raise InputError(f"{begins} gives the model; drop what differs ({'; '.join(wrong)}).")
    if not same_tokenizer(run, task):
        raise InputError(
            f"{begins}: data.name={config.data.name} has other tokens; change one."
        )
    there, step = restored(run, own, config.model.checkpoint, "trained")
    if config.solver != own.solver:
        there = with_solver(there, config.solver)
    fits = weight_shapes(there) == weight_shapes(model)
    if not fits and there.layers < own.model.layers:
        what = (
            f"{begins} has {there.layers} layers there, and model.layers={config.model.layers}"
        )
        write = f"model.layers={there.layers} and control.horizon={there.control.horizon:g}"
        raise InputError(f"{what}; take a later model.checkpoint, or write {write}.")
    if not fits:
        free = [text for key, text in changed.items() if key not in ("run", "checkpoint")]
        differ = "; ".join(free) or f"the sizes of the data, here {task.sizes}"
        raise InputError(
            f"{begins}: its weights do not fit the model; drop what differs ({differ})."
        )
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    taken = jax.tree.leaves(eqx.filter(there, eqx.is_inexact_array))
    combined = eqx.combine(jax.tree.structure(weights).unflatten(taken), static)
    return combined, step


def restored(
    folder: RunFolder, config: Config, checkpoint: Which, weights: Weights
) -> tuple[Model, int]:
    """The model of a configuration with the weights of a checkpoint, and the step of the
    checkpoint."""
    average = config.training.average
    if weights == "average" and not average:
        what = f"weights=average: {folder.path} keeps no moving average"
        raise InputError(f"{what}; train it with training.average=0.999.")
    key = jax.random.key(0)  # the drawn weights are replaced below
    sizes = sizes_of(folder, config)
    model = first_model(config, lambda config: build_model_of_size(config, sizes, key))
    programs = programs_of(config, model)
    with Checkpoints(folder, config, writes=False) as checkpoints:
        state = checkpoints.restore(programs.shapes_at, checkpoint)
    step = int(state.step)
    program = programs.at(step)
    model = eqx.combine(weights_of(state, weights, average), program.static)
    return causal(config, program.solved(model)), step


def sizes_of(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The sizes of a model that depend on the data of a run. The data are not read if the
    folder has them; other data of a `config` give other sizes, but no other statistics."""
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    if sizes is not None:
        return sizes
    own = folder.load_config(config)
    kept = folder.load_sizes() or {}
    if kept and (config.data, config.model) == (own.data, own.model):
        return kept
    statistics = {name: x for name, x in kept.items() if name in STATISTICS}
    return {**build_task(config).sizes, **statistics}


def resumed_config(folder: RunFolder, config: Config, *, restart: bool) -> Config:
    """The configuration with which a run continues; see `train`. Writes nothing."""
    own = folder.load_config(config)
    steps = config.training.steps
    before = own.training.steps
    if not config.optimizer.restarts:
        config = config.changed("optimizer", restarts=own.optimizer.restarts)
    config = config.model_copy(update={"training": config.training.scheduled_as(own.training)})
    free = {key: getattr(own.training, key) for key in own.training.FREE}
    others = changed_values(own, config.changed("training", **free, steps=before))
    if others or steps < before:
        differ = "; ".join(changed_values(own, config))
        what = f"--resume: {folder.path} was started with another configuration ({differ})"
        raise InputError(f"{what}. Give the same one, with as many training.steps or more.")
    if steps == before and not restart:
        return config
    # Phases keep the steps at which they ended; percentages of the longer run would move them.
    config = config.changed("training", schedule=own.training.schedule_in_steps)
    made = folder.newest_step or 0
    rate = learning_rate(own.optimizer, before)
    longer = learning_rate(config.optimizer, steps)
    numbers = jnp.arange(made)
    same = np.asarray(rate(numbers)) == np.asarray(longer(numbers))
    if same.all() and restart:
        what = f"--restart: {folder.path} has the learning rates of training.steps={steps}"
        raise InputError(f"{what}; drop it, or give more training.steps.")
    if same.all():
        return config
    now = np.asarray(rate(made)).item()
    possible = own.optimizer.schedule == "cosine" and now > 0
    if restart and possible:
        tree = config.model_dump(mode="json")
        tree["optimizer"]["restarts"] = {**own.optimizer.restarts, made: before}
        return validated(Config, tree, "--restart")
    cosine = f", or give --restart: another cosine falls from {now:.2g}, its rate now"
    what = (
        f"training.steps={steps}: {folder.path} has from step {np.argmin(same) + 1} on at other"
    )
    rates = f"learning rates (optimizer.schedule={own.optimizer.schedule})"
    write = f"Start a new run from model.pretrained={folder.path}{cosine * possible}"
    raise InputError(f"{what} {rates}. {write}.")
