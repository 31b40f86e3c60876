"""Runs made from checkpoints of others, and written as such."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from ..errors import InputError
from ..models import LanguageModel
from ..pretrained import find_pretrained, save_pretrained
from ..tasks import PretrainedTokenizer
from .build import build_model_of_size
from .checkpoints import Checkpoints
from .config import Config
from .folder import RunFolder, new_folder
from .loading import load_run
from .optimizer import build_optimizer
from .reading import apply_overrides, validated
from .step import initial_state


def import_pretrained(
    path: str, name: str, runs: Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """A run at step 0 with the weights of the checkpoint of a language model, and its
    tokenizer, or of a model of images; solved by its native scheme.

    **Arguments:**

    - `path`: see `load_pretrained`.
    - `name`: of the run, in the folder `runs`.
    - `overrides`: further keys of its configuration, `key=value`; a model of images needs
      `data.name`, and `data.path` where the data are in a folder.

    **Raises:** `InputError` for a checkpoint of another kind than the data need.
    """
    found = find_pretrained(path)
    # A path is kept whole, so that the run can be read from anywhere.
    kept = str(found.resolve()) if Path(path).exists() else path
    tree: dict[str, Any] = {"name": name, "model": {"pretrained": kept}}
    origin = apply_overrides(tree, overrides)
    config = validated(Config, tree, f"{runs / name}", origin)
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {}, key)
    optimizer = build_optimizer(config.optimizer, config.training.steps)
    state, _ = initial_state(model, optimizer, key, average=config.training.average)
    save: Callable[[Path], None] = _nothing
    if isinstance(model, LanguageModel):
        save = PretrainedTokenizer.from_pretrained(found).save
    folder = new_folder(config, runs, save)
    with folder.sole_use(), Checkpoints(folder, config, {}, writes=True) as checkpoints:
        checkpoints.save(0, state)
    return folder


def _nothing(path: Path) -> None:
    """Writes no tokenizer."""


def export_run(run: Path, path: Path, *, trust: bool = False) -> None:
    """The weights of a run that began from a checkpoint, in the layout of that checkpoint.

    **Arguments:**

    - `trust`: see `load_run`.

    **Raises:** `InputError` for a run that did not, or is solved by another scheme.
    """
    model, folder = load_run(run, trust=trust)
    source = folder.load_config(trust).model.pretrained
    if source is None:
        raise InputError(
            f"{run} did not begin from a checkpoint (model.pretrained), so there is no layout "
            "to write it in; load it with ide_transformer.training.load_run."
        )
    save_pretrained(model, path, like=source)
