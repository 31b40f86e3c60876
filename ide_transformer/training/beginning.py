"""The beginning of a run: its data, and its model with weights that are drawn, or those of a
checkpoint or of another run."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ..errors import InputError
from ..models import Model
from ..tasks import AbstractTask
from .build import (
    build_model,
    build_task,
    first_model,
    weight_shapes,
    with_solver,
    with_training,
)
from .config import Config
from .folder import RunFolder, changed_values, same_tokenizer
from .loading import restored


# Keys in which the model of a run may differ from that of the run whose weights it takes, where
# the weights keep their shapes.
_FREE = {"context", "width", "depth", "dropout", "layer_drop", "run", "checkpoint", "horizon"}


def build_start(
    config: Config, begun: RunFolder | None = None
) -> tuple[AbstractTask, Model, PRNGKeyArray]:
    """The task, the model and the key with which the training of a run starts. One that goes on
    from a checkpoint in the folder `begun` asks no other run for tokenizer and weights."""
    task = build_task(config, None if begun is None else begun.known_tokenizer)
    return task, *starting_model(config, task, drawn=begun is not None)


def starting_model(
    config: Config, task: AbstractTask, *, drawn: bool = False
) -> tuple[Model, PRNGKeyArray]:
    """The model and the key with which the training of a run starts on these data; its weights
    are `drawn` also where those of another run are asked for."""
    model_key, key = jax.random.split(jax.random.key(config.training.seed))
    model = first_model(config, lambda config: build_model(config, task, model_key))
    if config.model.run is not None and not drawn:
        model = _with_weights_of_run(config, task, model, RunFolder(config.model.run))
    return with_training(model, config.training), key


def _with_weights_of_run(
    config: Config, task: AbstractTask, model: Model, run: RunFolder
) -> Model:
    """The model with the weights of a run.

    **Raises:** `InputError` where they are those of another model, or of other data.
    """
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
        there = with_solver(there, config.solver)
    if weight_shapes(there) != weight_shapes(model):
        free = [text for key, text in changed.items() if key not in ("run", "checkpoint")]
        raise InputError(
            f"{begins}its weights do not fit the model; drop what differs ("
            f"{'; '.join(free) or f'the sizes of the data, here {task.sizes}'})."
        )
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    taken = jax.tree.leaves(eqx.filter(there, eqx.is_inexact_array))
    combined: Any = eqx.combine(jax.tree.structure(weights).unflatten(taken), static)
    return combined
