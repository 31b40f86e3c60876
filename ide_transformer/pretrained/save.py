"""Checkpoints from models."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arguments import checked
from ..equation import spelled
from ..errors import InputError, naming
from ..models import Model
from .checkpoint import Checkpoint, find_pretrained, tokenizer_file
from .family import Placement
from .files import read_json, write_archive, write_tensors


# Fields of a model that do not change its outputs: a checkpoint does not hold them.
_FREE = frozenset({"dropout", "gradient", "max_steps", "steps_for"})


@checked
def save_pretrained(model: Model, path: str | Path, *, like: str | Path) -> None:
    """Writes a model in the layout of the checkpoint that it was loaded from, so that the
    original library reads it. Tensors of that checkpoint that the model does not hold, such as
    other heads, are written as they are there.

    **Arguments:**

    - `path`: a folder, or for glassllm a file, that does not exist yet.
    - `like`: that checkpoint; options and tokenizer are taken from it.

    **Raises:** `InputError` where the model is not of that checkpoint's kind, or differs from
    it in more than the numbers of its weights, which the layout cannot express: the scheme,
    its steps, a constraint, an operator.
    """
    path, source = Path(path), find_pretrained(like)
    checkpoint = Checkpoint.open(source)
    taken = path.exists() if source.is_file() else path.is_dir() and any(path.iterdir())
    if taken or path.is_file():
        raise InputError(f"{path} is there already; give a new name.")
    if wrong := list(_differences(model, checkpoint.skeleton, "model")):
        raise InputError(
            f"The layout of {source} cannot express this model, so others would read it "
            "wrongly:\n  " + "\n  ".join(wrong) + "\nSave the run instead, or put back what "
            "differs, the scheme and its steps by model.with_solver(…)."
        )
    tensors = tensors_of(checkpoint.family.table(model))
    tensors |= {name: tensors[weight] for name, weight in checkpoint.copies.items()}
    named = {
        original: tensors[name] if name in tensors else checkpoint.tensors[name].read()
        for name, original in checkpoint.original.items()
    }
    if source.is_file():
        write_archive(path, checkpoint.options.values, named)
        if tokenizer_file(source).is_file():
            shutil.copy(tokenizer_file(source), tokenizer_file(path))
        return
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path, named)
    for file in sorted(source.iterdir()):
        kept = file.suffix in (".json", ".txt", ".model", ".jinja")
        if kept and "safetensors" not in file.name:
            shutil.copyfile(file, path / file.name)
    # The original library would round the weights to the dtype of the source.
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))).name
    file = path / "config.json"
    options = read_json(file)
    if stale := {x for x in ("dtype", "torch_dtype") if options.get(x, dtype) != dtype}:
        with naming(file):
            text = json.dumps(options | dict.fromkeys(stale, dtype), indent=2)
            file.write_text(text + "\n", encoding="utf-8")


def tensors_of(table: list[Placement]) -> dict[str, np.ndarray]:
    """The tensors of a model, as they are read into it.

    **Raises:** `InputError` where two weights share a tensor but differ.
    """
    tensors: dict[str, np.ndarray] = {}
    for placement in table:
        weight = (np.asarray(placement.weight) - placement.shift) / placement.scale
        weight = weight.astype(placement.weight.dtype)
        parts = weight if placement.layered else weight[None]
        for name, part in zip(placement.names(), parts, strict=True):
            written = name in tensors
            tensor = tensors.setdefault(name, np.empty(placement.tensor_shape, part.dtype))
            view = placement.permuted(tensor)
            if placement.rows is not None:
                view[..., placement.rows] = part
                continue
            part = part.reshape(view.shape)
            if written and not np.array_equal(view, part):
                raise InputError(
                    f"{name} is one tensor in this layout, but several weights of the model, "
                    "which differ now; it cannot be written. Train the other weights only, or "
                    "save the run."
                )
            view[...] = part
    return tensors


def _differences(own: Any, native: Any, path: str) -> Iterator[str]:
    """Places at which two models differ in more than the numbers of their weights."""
    if isinstance(native, jax.ShapeDtypeStruct) and eqx.is_array_like(own):
        if jnp.shape(own) != native.shape:
            yield f"{path}: {jnp.shape(own)} here, {native.shape} there"
    elif dataclasses.is_dataclass(native) and type(own) is type(native):
        for field in dataclasses.fields(native):
            if field.name not in _FREE:
                pair = getattr(own, field.name), getattr(native, field.name)
                yield from _differences(*pair, f"{path}.{field.name}")
    elif isinstance(native, tuple) and isinstance(own, tuple) and len(own) == len(native):
        for number, pair in enumerate(zip(own, native, strict=True)):
            yield from _differences(*pair, f"{path}[{number}]")
    elif type(own) is not type(native) or own != native:
        texts = [
            spelled(x) if len(spelled(x)) < 60 else type(x).__name__ for x in (own, native)
        ]
        yield f"{path}: {texts[0]} here, {texts[1]} there"
