"""Checkpoints to models and back."""

import itertools as it
import re
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ..errors import InputError
from ..models import AbstractModel
from . import albert, bert, dinov2, distilbert, gpt2, gpt_neox, gptj, llama, t5, vit
from .family import Family
from .fields import Fields
from .onnx_files import onnx_tensors
from .placement import Placement, check_table, fill, tensors_of
from .tensor_files import ReadableTensor, stored_tensors, write_tensors


FAMILIES: dict[str, Family] = {
    **albert.FAMILIES,
    **bert.FAMILIES,
    **dinov2.FAMILIES,
    **distilbert.FAMILIES,
    **gpt2.FAMILIES,
    **gpt_neox.FAMILIES,
    **gptj.FAMILIES,
    **llama.FAMILIES,
    **t5.FAMILIES,
    **vit.FAMILIES,
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
    return _Checkpoint.open(find_checkpoint(path)).model(dtype)


def load_onnx(
    path: str | Path,
    *,
    options: dict[str, Any] | None = None,
    dtype: DTypeLike | None = None,
) -> AbstractModel:
    """The model of an ONNX file that `torch.onnx.export(..., dynamo=False)` made from a model
    of the original library: its weights, as `load_pretrained` takes them from the checkpoint.
    Files of ViT and DeiT are tested, and those of DINOv2 without SwiGLU, exported with
    `do_constant_folding=False`, which leaves its positions whole. Needs the `onnx` extra.

    **Arguments:**

    - `path`: the file.
    - `options`: what `config.json` holds. Default: the `config.json` next to the file.
    - `dtype`: as of `load_pretrained`.

    **Raises:** `InputError` as `load_pretrained`, without the package `onnx`, and for files
    of other exporters, whose weights have lost their names.
    """
    path = Path(path)
    tensors = onnx_tensors(path)
    if options is not None:
        fields = Fields(options, Path("options"))
    elif (path.parent / "config.json").is_file():
        fields = Fields.read(path.parent)
    else:
        raise InputError(
            f"{path} holds weights, but not their options, and has no config.json next to "
            "it; put that of the checkpoint there, or give load_onnx(path, options={...})."
        )
    return _Checkpoint.of(fields, tensors, path).model(dtype)


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
    tensors: Mapping[str, ReadableTensor]
    original: Mapping[str, str]

    @classmethod
    def open(cls, folder: Path) -> "_Checkpoint":
        return cls.of(Fields.read(folder), stored_tensors(folder), folder)

    @classmethod
    def of(
        cls, fields: Fields, stored: Mapping[str, ReadableTensor], at: Path
    ) -> "_Checkpoint":
        family = fields.choose("model_type", FAMILIES)
        original = {family.canonical(name): name for name in stored}
        tensors = {name: stored[there] for name, there in original.items()}
        skeleton = eqx.filter_eval_shape(family.build, fields, frozenset(tensors))
        table = list(family.table(skeleton))
        ignored = {name for name in tensors if re.fullmatch(family.ignored, name)}
        check_table(table, tensors, ignored, at)
        return cls(family, skeleton, table, tensors, original)

    def model(self, dtype: DTypeLike | None) -> AbstractModel:
        chosen = None if dtype is None else np.dtype(jnp.dtype(dtype))
        return fill(self.skeleton, self.table, self.tensors, chosen)


def _check_like(model: AbstractModel, checkpoint: _Checkpoint, source: Path) -> None:
    native = checkpoint.skeleton
    if type(model) is not type(native):
        raise InputError(
            f"{source} holds a {type(native).__name__}, but the model is a "
            f"{type(model).__name__}; give the checkpoint that it was loaded from."
        )
    if str(model.scheme) != str(native.scheme):
        raise InputError(
            f"The model is solved by {model.solver}, but a checkpoint of this kind always by "
            f"{native.solver}: others would read it wrongly. Save the run instead, or write "
            "model.with_solver with that scheme."
        )
    table = list(checkpoint.family.table(model))
    pairs = it.zip_longest(map(_shape, table), map(_shape, checkpoint.table))
    wrong = [f"{ours}, there {theirs}" for ours, theirs in pairs if ours != theirs]
    placed = {id(p.weight) for p in table}
    weights = jax.tree.leaves(eqx.filter(model, eqx.is_array))
    wrong += [f"{x.shape}, there no place" for x in weights if id(x) not in placed]
    if wrong:
        raise InputError(f"The weights are not those of {source}: {'; '.join(wrong)}.")


def _shape(placement: Placement) -> tuple[int, ...]:
    return tuple(placement.weight.shape)
