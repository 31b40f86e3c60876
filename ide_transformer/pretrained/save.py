"""Writes models as checkpoints."""

import dataclasses
import functools as ft
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..arguments import checked
from ..equation import (
    AbstractControl,
    AbstractOperator,
    AbstractRandomOperator,
    PiecewiseConstant,
    Scaled,
    Tied,
    map_parts,
    spelled,
)
from ..errors import InputError, naming
from ..models import Model
from .checkpoint import Checkpoint, find_pretrained, tokenizer_file
from .families import families
from .family import Family, Placement
from .files import own_file, read_json, write_archive, write_tensors
from .options import Options


# Fields that do not change outputs, for full-sized images and to rounding.
_FREE = frozenset({"area_weights", "compute_dtype", "dropout", "fixed_size", "gradient"})
_FREE |= {"max_steps", "steps_for"}
# Weights that a model may lack, and their value in a checkpoint.
_NEUTRAL = {"bias": 0, "gain": 1}


@checked
def save_pretrained(model: Model, path: str | Path, *, like: str | Path | None = None) -> None:
    """Write a model in a Hugging Face layout, for other libraries: the layout of the checkpoint
    `like`, or else GPT-2, Llama or ViT, whichever fits the model.

    **Arguments:**

    - `path`: a new folder, or a new file for glassllm.
    - `like`: the checkpoint from which the model was loaded. It provides options, the tokenizer
      and tensors that the model does not have, such as other heads.

    **Raises:** `InputError`, which names all differences, if the layout cannot express the
    model: its scheme, steps, constraint or operators.
    """
    path = Path(path)
    model = _without_draws(model).each_equation(_in_whole_steps)
    if like is not None:
        _save_like(find_pretrained(like), model, path)
        return
    _check_new(path)
    model, family, options = _in_a_layout(model, path)
    path.mkdir(parents=True, exist_ok=True)
    named = {
        name if name.startswith(f"{family.head}.") else family.prefix + name: tensor
        for name, tensor in tensors_of(family.table(model)).items()
    }
    write_tensors(path, named)
    _write_options(path, {**options, "dtype": _dtype_of(model)})


def _save_like(source: Path, model: Model, path: Path) -> None:
    checkpoint = Checkpoint.open(source)
    _check_new(path, source.is_file() and path.exists())
    if wrong := list(_differences(model, checkpoint.skeleton, "model")):
        raise InputError(
            f"The layout of {source} cannot express this model:\n  "
            + "\n  ".join(wrong)
            + "\nUndo them (scheme and steps by model.on(Mesh(…))), or drop like=…: GPT-2, "
            "Llama and ViT may have other sizes."
        )
    tensors = tensors_of(checkpoint.family.table(_filled(model, checkpoint.skeleton)))
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
    # 1_Pooling belongs to sentence-transformers.
    kept = [
        own_file(source, str(file.relative_to(source)))
        for file in (*source.iterdir(), *source.glob("1_Pooling/config.json"))
        if file.suffix in (".json", ".txt", ".model", ".jinja") and file.is_file()
        if "safetensors" not in file.name
    ]
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path, named)
    for file in kept:
        copy = path / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
    # The dtype in the options must be the dtype of the weights.
    options = read_json(path / "config.json")
    dtype = _dtype_of(model)
    if stale := {x for x in ("dtype", "torch_dtype") if options.get(x, dtype) != dtype}:
        _write_options(path, options | dict.fromkeys(stale, dtype))


def _check_new(path: Path, taken: bool = False) -> None:
    if taken or path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path} is there already; give a new name.")


def _write_options(path: Path, options: dict[str, Any]) -> None:
    file = path / "config.json"
    with naming(file):
        file.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def _dtype_of(model: Model) -> str:
    return jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))).name


def _in_a_layout(model: Model, path: Path) -> tuple[Model, Family, dict[str, Any]]:
    """The model in the first layout that can express it, the family, and the options."""
    faults: dict[str, list[str]] = {}
    for kind, family in families().items():
        options = family.options_of and family.options_of(model)
        if not options:
            continue
        # Without these, a library takes its own checkpoint's tokens.
        options = {"model_type": kind, **options, "bos_token_id": None, "eos_token_id": None}
        try:
            asked = Options(options, path / "config.json"), frozenset({family.head})
            skeleton = eqx.filter_eval_shape(family.build, *asked)
        except InputError as error:
            faults[kind] = [str(error)]
            continue
        faults[kind] = list(_differences(model, skeleton, "model"))
        if not faults[kind]:
            return _filled(model, skeleton), family, options
    kinds = f"{type(model.inputs).__name__} and {type(model.read_out).__name__}"
    if not faults:
        raise InputError(f"No layout can express a model of {kinds}.")
    nearest = min(faults, key=lambda kind: len(faults[kind]))
    raise InputError(
        f"No layout can express this model. The nearest is {nearest}, with differences:\n  "
        + "\n  ".join(faults[nearest])
    )


def _without_draws(tree: PyTree) -> PyTree:
    return map_parts(tree, AbstractRandomOperator, lambda x, _: _without_draws(x.operator))


def _in_whole_steps(model: Model) -> Model:
    """A model without the step sizes of layers (`keep_layers`) that are one."""
    control = model.control
    if not isinstance(control, PiecewiseConstant | Tied):
        return model

    def whole(operator: Scaled, _: int) -> AbstractOperator:
        rate = np.asarray(operator.rate)
        each_layer = rate.ndim == control.depth_axes
        return operator.operator if each_layer and (rate == 1).all() else operator

    return eqx.tree_at(lambda m: m.control, model, map_parts(control, Scaled, whole))


def _filled(model: Model, native: PyTree) -> Model:
    """A model with neutral weights where it has none and the layout has some."""

    def at(path: tuple[Any, ...], tree: Any) -> Any:
        return ft.reduce(
            lambda x, k: x[k.idx] if hasattr(k, "idx") else getattr(x, k.name), path, tree
        )

    shapes = jax.tree.leaves_with_path(eqx.filter(native, lambda x: hasattr(x, "shape")))
    lacking = [(path, x.shape) for path, x in shapes if at(path, model) is None]
    if not lacking:
        return model
    dtype = _dtype_of(model)
    return eqx.tree_at(
        lambda model: [at(path, model) for path, _ in lacking],
        model,
        [
            jax.device_put(np.full(shape, _NEUTRAL[path[-1].name], dtype))
            for path, shape in lacking
        ],
        is_leaf=lambda x: x is None,
    )


def tensors_of(table: list[Placement]) -> dict[str, np.ndarray]:
    """The tensors of a model. Raises `InputError` if weights share a tensor but differ."""
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
                raise InputError(f"{name} is one tensor here, but several different weights.")
            view[...] = part
    return tensors


def _differences(own: Any, native: Any, path: str) -> Iterator[str]:
    """Differences between two models except the values of weights."""
    if isinstance(native, jax.ShapeDtypeStruct) and hasattr(own, "shape"):
        if own.shape != native.shape:
            yield f"{path}: {own.shape} here, {native.shape} there"
    elif isinstance(native, AbstractControl) and _layers(own) not in (None, _layers(native)):
        yield f"{path}.layers: {_layers(own)} here, {_layers(native)} there"
    elif isinstance(own, Scaled) and not isinstance(native, Scaled):
        rates = np.asarray(own.rate).ravel() if eqx.is_array(own.rate) else ()
        steps = ", ".join(f"{x:g}" for x in rates)
        yield f"{path}: its layers have step sizes here ({steps}), and none there"
    elif dataclasses.is_dataclass(native) and type(own) is type(native):
        yield from _of_fields(own, native, path)
    elif isinstance(native, tuple) and isinstance(own, tuple) and len(own) == len(native):
        for number, pair in enumerate(zip(own, native, strict=True)):
            yield from _differences(*pair, f"{path}[{number}]")
    elif type(own) is not type(native) or own != native:
        yield f"{path}: {_short(own)} here, {_short(native)} there"
        if isinstance(native, AbstractControl) and isinstance(own, AbstractControl):
            blocks = [eqx.filter_eval_shape(x, 0.0) for x in (own, native)]
            yield from _differences(blocks[0], blocks[1], f"{path}(0)")
        if isinstance(native, AbstractOperator) and isinstance(own, AbstractOperator):
            yield from _of_fields(own, native, path)


def _layers(control: Any) -> int | None:
    """The number of layers of a control; `None` for other objects."""
    if not isinstance(control, AbstractControl):
        return None
    return eqx.filter_eval_shape(lambda control: control.layers, control)


def _of_fields(own: Any, native: Any, path: str) -> Iterator[str]:
    for name in (field.name for field in dataclasses.fields(native)):
        pair = getattr(own, name, None), getattr(native, name)
        lacking = pair[0] is None and (name in _NEUTRAL or not hasattr(own, name))
        if name not in _FREE and not lacking:
            yield from _differences(*pair, f"{path}.{name}")


def _short(x: Any) -> str:
    text = spelled(x)
    if len(text) < 60:
        return text
    if isinstance(x, tuple):
        return ", ".join(type(one).__name__ for one in x)
    return type(x).__name__
