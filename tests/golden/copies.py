"""Copies of golden checkpoints that a test may change."""

import json
import shutil

from helpers import GOLDEN
from safetensors.numpy import load_file, save_file


def options_of(family):
    return json.loads((GOLDEN / family / "config.json").read_text())


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def changed_copy(folder, family, tensors=None, **options):
    """A copy of a golden checkpoint in `folder`, which may exist.

    **Arguments:**

    - `tensors`: a function from the tensors, by name, to others.
    - `options`: other values of options; `None` deletes one.
    """
    shutil.copytree(GOLDEN / family, folder, dirs_exist_ok=True)
    new = options_of(family) | options
    new = {name: value for name, value in new.items() if options.get(name, ...) is not None}
    (folder / "config.json").write_text(json.dumps(new))
    if tensors is not None:
        save_file(tensors(tensors_of(folder)), folder / "model.safetensors")
    return folder
