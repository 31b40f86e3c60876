"""The beginning of a run: its data, and its model with weights that are drawn, or those of a
checkpoint or of another run; and the configuration by which a run goes on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ..errors import InputError
from ..models import Model
from ..tasks import AbstractTask
from . import build
from .config import Config
from .folder import RunFolder, changed_values, same_tokenizer
from .loading import restored
from .optimizer import learning_rate
from .reading import validated


# Keys in which the model of a run may differ from that of the run whose weights it takes, where
# the weights keep their shapes.
_FREE = {"context", "width", "depth", "dropout", "layer_drop", "run", "checkpoint", "horizon"}


def build_start(
    config: Config, begun: RunFolder | None = None
) -> tuple[AbstractTask, Model, PRNGKeyArray]:
    """The task, the model and the key with which the training of a run starts. One that goes on
    from a checkpoint in the folder `begun` asks no other run for tokenizer and weights."""
    task = build.build_task(config, None if begun is None else begun.known_tokenizer)
    return task, *starting_model(config, task, drawn=begun is not None)


def starting_model(
    config: Config, task: AbstractTask, *, drawn: bool = False
) -> tuple[Model, PRNGKeyArray]:
    """The model and the key with which the training of a run starts on these data; its weights
    are `drawn` also where those of another run are asked for."""
    model_key, key = jax.random.split(jax.random.key(config.training.seed))
    model = build.first_model(config, lambda config: build.build_model(config, task, model_key))
    if config.model.run is not None and not drawn:
        model = _with_weights_of_run(config, task, model, RunFolder(config.model.run))
    return build.with_training(model, config.training), key


def _with_weights_of_run(
    config: Config, task: AbstractTask, model: Model, run: RunFolder
) -> Model:
    """The model with the weights of a run."""
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
    there, _ = restored(run, own, config.model.checkpoint, "trained")
    if config.solver != own.solver:
        there = build.with_solver(there, config.solver)
    if build.weight_shapes(there) != build.weight_shapes(model):
        free = [text for key, text in changed.items() if key not in ("run", "checkpoint")]
        raise InputError(
            f"{begins}its weights do not fit the model; drop what differs ("
            f"{'; '.join(free) or f'the sizes of the data, here {task.sizes}'})."
        )
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    taken = jax.tree.leaves(eqx.filter(there, eqx.is_inexact_array))
    combined: Any = eqx.combine(jax.tree.structure(weights).unflatten(taken), static)
    return combined


def configuration_of(folder: RunFolder, config: Config, *, restart: bool) -> Config:
    """The configuration by which a run goes on that was asked to go on by `config`. It may have
    more `training.steps` where the steps that the run has made had the learning rates of the
    longer run, or where another cosine begins (`restart`). It writes nothing."""
    own = folder.load_config(config)
    steps, before = config.training.steps, own.training.steps
    if not config.optimizer.restarts:
        config = config.changed("optimizer", restarts=own.optimizer.restarts)
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
    # It was, or will be, refined at the same steps, not at later ones.
    refine = dict(zip(own.training.begins, own.training.refine.values(), strict=False))
    config = config.changed("training", refine=refine)
    made = folder.newest_step or 0
    rate = learning_rate(own.optimizer, before)
    longer, numbers = learning_rate(config.optimizer, steps), jnp.arange(made)
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
