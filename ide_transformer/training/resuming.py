"""The configuration by which a run goes on: the one it began with, or that of a longer run."""

import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from .checkpoints import newest_step
from .config import Config
from .folder import RunFolder, changed_values
from .optimizer import learning_rate
from .reading import validated


def configuration_of(folder: RunFolder, config: Config, *, restart: bool) -> Config:
    """The configuration by which a run goes on that was asked to go on by `config`. It may have
    more `training.steps` where the steps that the run has made had the learning rates of the
    longer run, or where another cosine begins (`restart`). It writes nothing.

    **Raises:** `InputError` for any other configuration.
    """
    own = folder.load_config(config)
    steps, before = config.training.steps, own.training.steps
    if not config.optimizer.restarts:
        config = _with(config, "optimizer", restarts=own.optimizer.restarts)
    others = changed_values(own, _with(config, "training", steps=before))
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
    config = _with(config, "training", refine=refine)
    made = newest_step(folder, own) or 0
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


def _with(config: Config, section: str, **values: object) -> Config:
    changed = getattr(config, section).model_copy(update=values)
    return config.model_copy(update={section: changed})
