"""Checkpoints to models and back."""

import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ..errors import InputError
from ..models import AbstractModel, Scheme
from . import albert, bert, distilbert, gpt2, gpt_neox, gptj, llama, t5, whisper
from .family import Family
from .fields import Fields
from .placement import Placement, check_table, fill, tensors_of
from .tensor_files import StoredTensor, stored_tensors, write_tensors


FAMILIES: dict[str, Family] = {
    **albert.FAMILIES,
    **bert.FAMILIES,
    **distilbert.FAMILIES,
    **gpt2.FAMILIES,
    **gpt_neox.FAMILIES,
    **gptj.FAMILIES,
    **llama.FAMILIES,
    **t5.FAMILIES,
    **whisper.FAMILIES,
}


def load_pretrained(path: str | Path, *, dtype: DTypeLike | None = None) -> AbstractModel:
    """The model of a checkpoint in the layout of Hugging Face, `config.json` and
    `model.safetensors` or its shards. Solved by the scheme that comes with it, it gives what
    the original gives; `with_solver` solves the same weights otherwise.

    **Arguments:**

    - `path`: the folder, or the name of an installed package that holds one.
    - `dtype`: of the weights. Default: that of the checkpoint, but at least float32.

    **Raises:** `InputError` for a folder without a checkpoint, a kind of model or an option
    that is not known, and tensors that are missing, not known or of another shape.
    """
    checkpoint = _Checkpoint.open(find_checkpoint(path))
    chosen = None if dtype is None else np.dtype(jnp.dtype(dtype))
    return fill(checkpoint.skeleton, checkpoint.table, checkpoint.tensors, chosen)


def save_pretrained(model: AbstractModel, path: str | Path, *, like: str | Path) -> None:
    """Writes a model in the layout of the checkpoint from which it was loaded, so that the
    original library reads it.

    **Arguments:**

    - `path`: a folder that does not exist, or is empty.
    - `like`: that checkpoint; options and tokenizer are taken from it.

    **Raises:** `InputError` where the model is not of that checkpoint's kind, or is solved by
    another scheme, which the layout has no word for.
    """
    path, source = Path(path), find_checkpoint(like)
    checkpoint = _Checkpoint.open(source)
    if path.exists() and any(path.iterdir()):
        raise InputError(f"{path} is not empty; give a new folder.")
    _check_like(model, checkpoint, source)
    table = checkpoint.family.table(model)
    tensors = tensors_of(table)
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {checkpoint.original[name]: x for name, x in tensors.items()})
    for file in sorted(source.iterdir()):
        if file.suffix in (".json", ".txt", ".model") and "safetensors" not in file.name:
            shutil.copy(file, path)


def find_checkpoint(path: str | Path) -> Path:
    """The folder of a checkpoint: that path, or the one inside an installed package.

    **Raises:** `InputError` where there is neither.
    """
    if Path(path).is_dir():
        return Path(path)
    name = str(path)
    spec = find_spec(name) if name.isidentifier() else None
    for root in [] if spec is None else spec.submodule_search_locations or []:
        for config in sorted(Path(root).rglob("config.json")):
            if any(config.parent.glob("*.safetensors")):
                return config.parent
    raise InputError(
        f"{path} is neither a folder nor an installed package with a checkpoint; give the "
        "folder that holds config.json and model.safetensors."
    )


class _Checkpoint(NamedTuple):
    """A checkpoint whose tensors fit its options, none of them read yet.

    - `tensors`: by their names in the table.
    - `original`: the name in the file to each of those.
    """

    family: Family
    skeleton: AbstractModel
    table: list[Placement]
    tensors: Mapping[str, StoredTensor]
    original: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> "_Checkpoint":
        fields = Fields.read(folder)
        family = fields.choose("model_type", FAMILIES)
        stored = stored_tensors(folder)
        original = {_canonical(name, family.prefix): name for name in stored}
        tensors = {name: stored[there] for name, there in original.items()}
        skeleton = eqx.filter_eval_shape(family.build, fields, frozenset(tensors))
        table = list(family.table(skeleton))
        ignored = {name for name in tensors if re.fullmatch(family.ignored, name)}
        check_table(table, tensors, ignored, folder)
        return cls(family, skeleton, table, tensors, original)


def _canonical(name: str, prefix: str) -> str:
    """A name without the prefix, in the words of today's checkpoints."""
    name = name.removeprefix(prefix)
    return re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", name))


def _check_like(model: AbstractModel, checkpoint: _Checkpoint, source: Path) -> None:
    native = checkpoint.skeleton
    if type(model) is not type(native):
        raise InputError(
            f"{source} holds a {type(native).__name__}, but the model is a "
            f"{type(model).__name__}; give the checkpoint that it was loaded from."
        )
    for ours, theirs in zip(_schemes(model), _schemes(native), strict=True):
        if str(ours) != str(theirs):
            raise InputError(
                f"The model is solved by {ours.solver}, but a checkpoint of this kind always "
                f"by {theirs.solver}: others would read it wrongly. Save the run instead, or "
                "write model.with_solver with that scheme."
            )
    shapes = [(p.weight.shape, q.weight.shape) for p, q in _paired(model, checkpoint)]
    wrong = [f"{ours}, there {theirs}" for ours, theirs in shapes if ours != theirs]
    if wrong:
        raise InputError(f"The weights are not those of {source}: {'; '.join(wrong)}.")


def _schemes(model: AbstractModel) -> list[Scheme]:
    """That of the model and those of the models inside it."""
    leaves = jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, Scheme))
    return [x for x in leaves if isinstance(x, Scheme)]


def _paired(model: AbstractModel, checkpoint: _Checkpoint):
    return zip(checkpoint.family.table(model), checkpoint.table, strict=True)
