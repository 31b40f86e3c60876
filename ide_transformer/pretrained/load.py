"""Checkpoints to models and back."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import DTypeLike

from ..errors import InputError
from ..models import AbstractModel, Discretization
from .families import (
    albert,
    bert,
    dinov2,
    distilbert,
    glassllm,
    gpt2,
    gpt_neox,
    gptj,
    llama,
    t5,
    vit,
    whisper,
)
from .families.glassllm import read_archive, write_archive
from .family import Family
from .fields import Fields
from .find import find_pretrained
from .onnx_files import onnx_tensors
from .placement import Placement, check_table, expected_shapes, fill, tensors_of
from .tensor_files import StoredTensor, stored_tensors, write_tensors


FAMILIES: dict[str, Family] = {
    **albert.FAMILIES,
    **bert.FAMILIES,
    **dinov2.FAMILIES,
    **distilbert.FAMILIES,
    **glassllm.FAMILIES,
    **gpt2.FAMILIES,
    **gpt_neox.FAMILIES,
    **gptj.FAMILIES,
    **llama.FAMILIES,
    **t5.FAMILIES,
    **vit.FAMILIES,
    **whisper.FAMILIES,
}


def load_pretrained(path: str | Path, *, dtype: DTypeLike | None = None) -> AbstractModel:
    """The model of a checkpoint. Solved by the scheme that comes with it, it gives what the
    original gives; `with_solver` solves the same weights otherwise.

    **Arguments:**

    - `path`: a folder in the layout of Hugging Face, `config.json` and `model.safetensors` or
      its shards; a NumPy archive of glassllm; or the name of a package with weights, see
      `find_pretrained`.
    - `dtype`: of the weights. Default: that of the checkpoint, but at least float32.

    **Raises:** `InputError` where there is no checkpoint, for a kind of model or an option
    that is not known, and tensors that are missing, not known or of another shape.
    """
    return _Pretrained.open(find_pretrained(path)).model(dtype)


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
    return _Pretrained.of(fields, tensors, path).model(dtype)


def save_pretrained(model: AbstractModel, path: str | Path, *, like: str | Path) -> None:
    """Writes a model in the layout of the checkpoint from which it was loaded, so that the
    original library reads it.

    **Arguments:**

    - `path`: a folder, or for glassllm a file, that does not exist.
    - `like`: that checkpoint; options and tokenizer are taken from it.

    **Raises:** `InputError` where the model is not of that checkpoint's kind, or is solved by
    another scheme, which the layout has no word for.
    """
    path, source = Path(path), find_pretrained(like)
    checkpoint = _Pretrained.open(source)
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path} is there already; give a new name.")
    _check_like(model, checkpoint, source)
    tensors = tensors_of(checkpoint.family.table(model))
    named = {checkpoint.original[name]: tensor for name, tensor in tensors.items()}
    if source.is_file():
        write_archive(path, checkpoint.fields, named)
        return
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path, named)
    for file in sorted(source.iterdir()):
        if file.suffix in (".json", ".txt", ".model") and "safetensors" not in file.name:
            shutil.copy(file, path)


class _Pretrained(NamedTuple):
    """A checkpoint whose tensors fit its options, none of them read yet.

    - `tensors`: by their names in the table.
    - `original`: the name in the file to each of those.
    """

    fields: Fields
    family: Family
    skeleton: AbstractModel
    table: list[Placement]
    tensors: Mapping[str, StoredTensor]
    original: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> "_Pretrained":
        if path.is_file():
            return cls.of(*read_archive(path), path)
        return cls.of(Fields.read(path), stored_tensors(path), path)

    @classmethod
    def of(cls, fields: Fields, stored: Mapping[str, StoredTensor], at: Path) -> "_Pretrained":
        family = fields.choose("model_type", FAMILIES)
        original = {family.canonical(name): name for name in stored}
        tensors = {name: stored[there] for name, there in original.items()}
        skeleton = eqx.filter_eval_shape(family.build, fields, frozenset(tensors))
        table = list(family.table(skeleton))
        ignored = {name for name in tensors if re.fullmatch(family.ignored, name)}
        check_table(table, tensors, ignored, at)
        return cls(fields, family, skeleton, table, tensors, original)

    def model(self, dtype: DTypeLike | None) -> AbstractModel:
        chosen = None if dtype is None else np.dtype(jnp.dtype(dtype))
        return fill(self.skeleton, self.table, self.tensors, chosen)


def _check_like(model: AbstractModel, checkpoint: _Pretrained, source: Path) -> None:
    native = checkpoint.skeleton
    if type(model) is not type(native):
        raise InputError(
            f"{source} holds a {type(native).__name__}, but the model is a "
            f"{type(model).__name__}; give the checkpoint that it was loaded from."
        )
    for mine, its in zip(_schemes(model), _schemes(native), strict=True):
        if str(mine) != str(its):
            raise InputError(
                f"The model is solved by {mine.solver}, but a checkpoint of this kind always "
                f"by {its.solver}: others would read it wrongly. Save the run instead, or "
                "write model.with_solver with that scheme."
            )
    table = list(checkpoint.family.table(model))
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


def _schemes(model: AbstractModel) -> list[Discretization]:
    """That of the model and those of the models inside it."""
    leaves = jax.tree.leaves(model, is_leaf=lambda x: isinstance(x, Discretization))
    return [x for x in leaves if isinstance(x, Discretization)]
