"""Checkpoints from models."""

import shutil
from pathlib import Path

import equinox as eqx
import jax

from ..equation import parts
from ..errors import InputError
from ..models import AbstractModel, Discretization
from .archive import write_archive
from .checkpoint import Checkpoint
from .load import find_pretrained, tokenizer_file
from .safetensors_files import write_tensors
from .transfer import expected_shapes, tensors_of


def save_pretrained(model: AbstractModel, path: str | Path, *, like: str | Path) -> None:
    """Writes a model in the layout of the checkpoint that it was loaded from, so that the
    original library reads it.

    **Arguments:**

    - `path`: a folder, or for glassllm a file, that does not exist yet.
    - `like`: that checkpoint; options and tokenizer are taken from it.

    **Raises:** `InputError` where the model is not of that checkpoint's kind, or is solved by
    another scheme, which the layout cannot express.
    """
    path, source = Path(path), find_pretrained(like)
    checkpoint = Checkpoint.open(source)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path} is there already; give a new name.")
    _check_kind(model, checkpoint, source)
    _check_weights(model, checkpoint, source)
    tensors = tensors_of(checkpoint.family.table(model))
    named = {checkpoint.original[name]: tensor for name, tensor in tensors.items()}
    if source.is_file():
        write_archive(path, checkpoint.options, named)
        if tokenizer_file(source).is_file():
            shutil.copy(tokenizer_file(source), tokenizer_file(path))
        return
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path, named)
    for file in sorted(source.iterdir()):
        if file.suffix in (".json", ".txt", ".model") and "safetensors" not in file.name:
            shutil.copy(file, path)


def _check_kind(model: AbstractModel, checkpoint: Checkpoint, source: Path) -> None:
    native = checkpoint.skeleton
    if type(model) is not type(native):
        raise InputError(
            f"{source} holds a {type(native).__name__}, but the model is a "
            f"{type(model).__name__}; give the checkpoint that it was loaded from."
        )
    # Those of the models inside it too.
    pairs = zip(parts(model, Discretization), parts(native, Discretization), strict=True)
    for own, expected in pairs:
        if not eqx.tree_equal(own, expected):
            raise InputError(
                f"The model is solved by {own.solver}, but a checkpoint of this kind always "
                f"by {expected.solver}: others would read it wrongly. Save the run instead, or "
                "write model.with_solver with that scheme."
            )


def _check_weights(model: AbstractModel, checkpoint: Checkpoint, source: Path) -> None:
    table = checkpoint.family.table(model)
    ours, theirs = expected_shapes(table), expected_shapes(checkpoint.table)
    wrong = [
        f"{name}: {ours.get(name, 'none')} here, {theirs.get(name, 'none')} there"
        for name in ours | theirs
        if ours.get(name) != theirs.get(name)
    ]
    placed = {id(p.weight) for p in table}
    weights = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    wrong += [f"{x.shape}: no place for it there" for x in weights if id(x) not in placed]
    if wrong:
        raise InputError(
            f"The weights of the model are not those of {source}:\n  " + "\n  ".join(wrong)
        )
