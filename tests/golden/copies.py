"""Copies of golden checkpoints that a test may change."""

import json
import shutil

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.helpers import GOLDEN


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


def make_archive(path, *, vocabulary):
    shape = dict(d_model=8, n_layers=2, n_heads=2, n_kv_heads=1)
    options = shape | dict(vocab_size=vocabulary, max_len=6, rope_base=100.0, eps=1e-5)
    hidden, random = 21, np.random.default_rng(0)
    shapes = {"E": (vocabulary, 8), "norm_f.gamma": (8,)}
    for layer in ("blocks.0", "blocks.1"):
        shapes |= {f"{layer}.attn.W_{x}": (8, 8) for x in "QO"}
        shapes |= {f"{layer}.attn.W_{x}": (8, 4) for x in "KV"}
        shapes |= {f"{layer}.ffn.W{x}": (8, hidden) for x in (1, 3)}
        shapes |= {f"{layer}.ffn.W2": (hidden, 8)}
        shapes |= {f"{layer}.norm{x}.gamma": (8,) for x in (1, 2)}
    arrays = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    np.savez(path, __config__=np.array(json.dumps(options)), **arrays)
    return options, arrays
