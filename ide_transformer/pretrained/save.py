"""Writes models as checkpoints."""

import dataclasses
import functools as ft
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
    AbstractAttention,
    AbstractControl,
    AbstractFeedForward,
    AbstractOperator,
    Dropout,
    Linear,
    PiecewiseConstant,
    Scaled,
    Tied,
    map_parts,
    merge_low_rank,
    parts,
    spell,
    without_low_rank,
)
from ..errors import InputError
from ..models import Model
from .adapter import base_name, is_adapter, write_adapter
from .checkpoint import Checkpoint, base_of, find_pretrained, tokenizer_file
from .families import families
from .family import Family, Placement
from .files import check_inside, read_json, write_archive, write_options, write_tensors
from .options import Options


# Fields that change outputs for full-sized inputs by rounding at most.
_HARMLESS = frozenset({"area_weights", "compute_dtype", "dropout", "fixed_size", "gradient"})
_HARMLESS |= {"max_steps", "steps_for"}
# Weights that a model may lack, and their values in a checkpoint.
_NEUTRAL = {"bias": 0, "gain": 1}


@checked
def save_pretrained(
    model: Model, path: str | Path, *, like: str | Path | None = None, adapter: bool = False
) -> None:
    """Write a model in a layout of Hugging Face, for other libraries: the layout of the
    checkpoint `like`, or by default the first of GPT-2, Llama and ViT that fits.

    **Arguments:**

    - `path`: a new folder, or a new file for glassllm.
    - `like`: the checkpoint from which the model was loaded. It provides options, the tokenizer
      and tensors that the model does not have, such as other heads. The model may have fewer
      layers.
    - `adapter`: write only the low-rank changes (`LowRank`), as an adapter of PEFT to the
      checkpoint `like`. By default they are added to the matrices.

    Step sizes λ of layers (`Scaled`) are multiplied into the last linear map of an operator,
    the output map of attention or the outer map of a feed-forward: W λ and b λ replace W and b.

    **Raises:** `InputError` with all differences if the layout cannot express the scheme,
    steps, constraint or operators of the model; for an adapter also if weights have other than
    low-rank changes.
    """
    path = Path(path)
    model = _drop_dropout(model)
    if adapter:
        _save_adapter(model, path, like)
        return
    model = merge_low_rank(model)
    if like is not None:
        _save_like(base_of(find_pretrained(like)), model, path)
        return
    _check_new(path)
    model, family, options = _fit_layout(model, path)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {
        name if name.startswith(f"{family.head}.") else family.prefix + name: tensor
        for name, tensor in tensors_of(family.table(model)).items()
    }
    write_tensors(path, tensors)
    write_options(path / "config.json", {**options, "dtype": _dtype_of(model)})


def _save_like(source: Path, model: Model, path: Path) -> None:
    checkpoint = _drop_layers(Checkpoint.open(source), model)
    model = _fold_step_sizes(model, checkpoint.skeleton)
    _check_new(path, exists=source.is_file() and path.exists())
    _check_layout(model, checkpoint, source)
    tensors = tensors_of(checkpoint.family.table(_fill_weights(model, checkpoint.skeleton)))
    tensors |= {name: tensors[weight] for name, weight in checkpoint.copies.items()}
    by_original_name = {
        original: tensors[name] if name in tensors else checkpoint.tensors[name].read()
        for name, original in checkpoint.original.items()
    }
    if source.is_file():
        write_archive(path, checkpoint.options.values, by_original_name)
        if tokenizer_file(source).is_file():
            shutil.copy(tokenizer_file(source), tokenizer_file(path))
        return
    # 1_Pooling belongs to sentence-transformers.
    files = [
        check_inside(source, str(file.relative_to(source)))
        for file in (*source.iterdir(), *source.glob("1_Pooling/config.json"))
        if file.suffix in (".json", ".txt", ".model", ".jinja") and file.is_file()
        if "safetensors" not in file.name
    ]
    path.mkdir(parents=True, exist_ok=True)
    write_tensors(path, by_original_name)
    for file in files:
        copy = path / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
    # The dtype in the options must be the dtype of the weights.
    options = dict(checkpoint.options.values)
    dtypes = dict.fromkeys(("dtype", "torch_dtype"), _dtype_of(model))
    options |= {name: dtype for name, dtype in dtypes.items() if name in options}
    if options != read_json(path / "config.json"):
        write_options(path / "config.json", options)


def _drop_layers(checkpoint: Checkpoint, model: Model) -> Checkpoint:
    """Keeps as many first layers of a checkpoint as the model has; if the model has more, the
    checkpoint stays."""
    layers = [x.layers for x in model.equations]
    stored = [_layers(x.control) or 0 for x in checkpoint.skeleton.equations]
    if layers == stored or len(layers) != len(stored):
        return checkpoint
    if any(x > y for x, y in zip(layers, stored, strict=True)):
        return checkpoint
    options = checkpoint.options
    family = checkpoint.family
    if not (changed := family.layers(layers, options.values)):
        return checkpoint
    options = Options({**options.values, **changed}, options.file)
    shorter = eqx.filter_eval_shape(family.build, options, frozenset(checkpoint.tensors))
    num_layers = {
        place.name.partition("{layer}")[0]: len(place.names())
        for place in family.table(shorter)
        if "{layer}" in place.name
    }

    def is_dropped(name: str) -> bool:
        for prefix, layers in num_layers.items():
            layer = name.removeprefix(prefix).partition(".")[0]
            if name.startswith(prefix) and layer.isdecimal() and int(layer) >= layers:
                return True
        return False

    tensors = {
        original: checkpoint.tensors[name]
        for name, original in checkpoint.original.items()
        if not is_dropped(name)
    }
    return Checkpoint.from_tensors(options, tensors, options.file)


def _save_adapter(model: Model, path: Path, like: str | Path | None) -> None:
    location = None if like is None else find_pretrained(like)
    if location is None or base_of(location).is_file():
        raise InputError(
            "adapter=True: pass like=…, the folder of the checkpoint from which training "
            "began. For an archive or a run without model.pretrained drop adapter=True."
        )
    source = base_of(location)
    checkpoint = Checkpoint.open(source)
    _check_new(path)
    unadapted = _fold_step_sizes(without_low_rank(model), checkpoint.skeleton)
    _check_layout(unadapted, checkpoint, source)
    tables = (checkpoint.family.table(x) for x in (unadapted, checkpoint.model(None)))
    for place, stored_place in zip(*tables, strict=True):
        if not np.array_equal(place.weight, stored_place.weight):
            raise InputError(
                f"{place.name} has other than low-rank changes of {source}; drop adapter=True."
            )
    base = base_name(location) if is_adapter(location) else str(like)
    kind = checkpoint.architecture
    task = "CAUSAL_LM" if kind.endswith(("ForCausalLM", "LMHeadModel")) else None
    name, _, revision = (base, "", "") if Path(base).exists() else base.partition("@")
    options = {"base_model_name_or_path": name, "revision": revision or None, "task_type": task}
    write_adapter(path, model, checkpoint.family, checkpoint.modules(), options)


def _check_layout(model: Model, checkpoint: Checkpoint, source: Path) -> None:
    if wrong := list(_differences(model, checkpoint.skeleton, "model")):
        raise InputError(
            f"The layout of {source} cannot express this model:\n  "
            + "\n  ".join(wrong)
            + "\nUndo these changes (steps by model.on(Mesh(…))), or drop like=…: GPT-2, Llama "
            "and ViT may have other sizes."
        )


def _check_new(path: Path, exists: bool = False) -> None:
    if exists or path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path} exists already; pass a new path.")


def _dtype_of(model: Model) -> str:
    return jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))).name


def _fit_layout(model: Model, path: Path) -> tuple[Model, Family, dict[str, Any]]:
    """The model in the first layout that can express it, the family, and the options."""
    faults: dict[str, list[str]] = {}
    for kind, family in families().items():
        options = family.options_of and family.options_of(model)
        if not options:
            continue
        # By default a library uses the tokens of its own checkpoint.
        options = {"model_type": kind, **options, "bos_token_id": None, "eos_token_id": None}
        try:
            arguments = Options(options, path / "config.json"), frozenset({family.head})
            skeleton = eqx.filter_eval_shape(family.build, *arguments)
        except InputError as error:
            faults[kind] = [str(error)]
            continue
        folded = _fold_step_sizes(model, skeleton)
        faults[kind] = list(_differences(folded, skeleton, "model"))
        if not faults[kind]:
            return _fill_weights(folded, skeleton), family, options
    kinds = f"{type(model.inputs).__name__} and {type(model.read_out).__name__}"
    if not faults:
        raise InputError(f"No layout can express a model of {kinds}.")
    nearest = min(faults, key=lambda kind: len(faults[kind]))
    raise InputError(
        f"No layout can express this model. The nearest is {nearest}, with differences:\n  "
        + "\n  ".join(faults[nearest])
    )


def _drop_dropout(tree: PyTree) -> PyTree:
    return map_parts(tree, Dropout, lambda x, _: _drop_dropout(x.operator))


def _fold_step_sizes(model: Model, native: Model) -> Model:
    """Multiplies the step sizes of layers into the weights. Equal blocks become one block if
    the layout has one."""
    natives = iter(native.equations)
    return model.each_equation(lambda x: _fold_equation(x, next(natives, x)))


def _fold_equation(model: Model, native: Model) -> Model:
    control = model.control
    if not isinstance(control, PiecewiseConstant | Tied):
        return model
    # DINOv2 has step sizes.
    native_scales = bool(parts(native.control, Scaled))

    def fold(scaled: Scaled, _: int) -> AbstractOperator:
        if native_scales and not isinstance(scaled.operator, Scaled):
            return scaled
        folded = _multiply_weights(scaled, control.depth_axes)
        if folded is scaled or not isinstance(folded, Scaled):
            return folded
        return fold(folded, 0)

    control = map_parts(control, Scaled, fold)
    if isinstance(native.control, Tied) and isinstance(control, PiecewiseConstant):
        control = _tie_equal_layers(control)
    return eqx.tree_at(lambda m: m.control, model, control)


def _multiply_weights(scaled: Scaled, depth_axes: int) -> AbstractOperator:
    """A with λ multiplied into its last linear map, or λ A if A has no such map."""
    rate = np.asarray(scaled.rate)
    if (rate == 1).all():
        return scaled.operator
    if _last_linear_map(scaled) is None:
        return scaled
    # `[layers, 1 or features]`; without layers in a tied block.
    rate = rate if rate.ndim > depth_axes else rate[..., None]

    def multiply(x: Any) -> Any:
        factor = rate if x.ndim == rate.ndim else rate[..., None, :]
        return jax.device_put((np.asarray(x) * factor).astype(x.dtype))

    return eqx.tree_at(
        _last_linear_map,
        scaled.operator,
        replace_fn=lambda linear: jax.tree.map(multiply, linear),
    )


def _last_linear_map(operator: AbstractOperator) -> Linear | None:
    match operator:
        case Scaled():
            return _last_linear_map(operator.operator)
        case AbstractAttention():
            return operator.output
        case AbstractFeedForward():
            return operator.outer
    return None


def _tie_equal_layers(control: PiecewiseConstant) -> PiecewiseConstant | Tied:
    """One block if all layers are equal, or else the control."""
    stacks = jax.tree.leaves(eqx.filter(control.blocks, eqx.is_array))
    if any((np.asarray(x) != np.asarray(x[:1])).any() for x in stacks):
        return control
    block = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, control.blocks)
    return Tied(block, control.layers, control.interval_length)


def _fill_weights(model: Model, native: PyTree) -> Model:
    """Adds neutral weights where the layout has weights and the model has none."""

    def part_at(path: tuple[Any, ...], tree: Any) -> Any:
        return ft.reduce(
            lambda x, k: x[k.idx] if hasattr(k, "idx") else getattr(x, k.name), path, tree
        )

    shapes = jax.tree.leaves_with_path(eqx.filter(native, lambda x: hasattr(x, "shape")))
    missing = [(path, x.shape) for path, x in shapes if part_at(path, model) is None]
    if not missing:
        return model
    dtype = _dtype_of(model)
    return eqx.tree_at(
        lambda model: [part_at(path, model) for path, _ in missing],
        model,
        [
            jax.device_put(np.full(shape, _NEUTRAL[path[-1].name], dtype))
            for path, shape in missing
        ],
        is_leaf=lambda x: x is None,
    )


def tensors_of(table: list[Placement]) -> dict[str, np.ndarray]:
    """The tensors of a model. Raises `InputError` if weights that share a tensor differ."""
    tensors: dict[str, np.ndarray] = {}
    for placement in table:
        weight = (np.asarray(placement.weight) - placement.shift) / placement.scale
        weight = weight.astype(placement.weight.dtype)
        parts = weight if placement.layered else weight[None]
        for name, part in zip(placement.names(), parts, strict=True):
            is_repeated = name in tensors
            tensor = tensors.setdefault(name, np.empty(placement.tensor_shape, part.dtype))
            view = placement.permuted(tensor)
            if placement.rows is not None:
                view[..., placement.rows] = part
                continue
            reshaped = part.reshape(view.shape)
            if is_repeated and not np.array_equal(view, reshaped):
                raise InputError(
                    f"{name} is one tensor of the layout, but weights of the model that use it "
                    "differ; make them equal."
                )
            view[...] = reshaped
    return tensors


def _differences(part: Any, layout: Any, path: str) -> Iterator[str]:
    """Yields differences between a part of a model and of a layout, except those of values."""
    if isinstance(layout, jax.ShapeDtypeStruct) and hasattr(part, "shape"):
        if part.shape != layout.shape:
            yield f"{path}: {part.shape}, but the layout has {layout.shape}"
    elif isinstance(layout, AbstractControl) and _layers(part) not in (None, _layers(layout)):
        yield f"{path}.layers: {_layers(part)}, but the layout has {_layers(layout)}"
    elif isinstance(layout, Tied) and isinstance(part, PiecewiseConstant):
        yield (
            f"{path}: layers differ, but the layout has one block for all; leave out whole "
            "layers (keep_layers), without merging them or fitting their step sizes"
        )
    elif isinstance(part, Scaled) and not isinstance(layout, Scaled):
        rates = np.asarray(part.rate).ravel() if eqx.is_array(part.rate) else ()
        steps = ", ".join(f"{x:g}" for x in rates)
        yield f"{path}: layers have step sizes ({steps}), but the layout has none"
    elif dataclasses.is_dataclass(layout) and type(part) is type(layout):
        yield from _field_differences(part, layout, path)
    elif isinstance(layout, tuple) and isinstance(part, tuple) and len(part) == len(layout):
        for i, pair in enumerate(zip(part, layout, strict=True)):
            yield from _differences(*pair, f"{path}[{i}]")
    elif type(part) is not type(layout) or part != layout:
        yield f"{path}: {_describe(part)}, but the layout has {_describe(layout)}"
        if isinstance(layout, AbstractControl) and isinstance(part, AbstractControl):
            blocks = [eqx.filter_eval_shape(x, 0.0) for x in (part, layout)]
            yield from _differences(blocks[0], blocks[1], f"{path}(0)")
        if isinstance(layout, AbstractOperator) and isinstance(part, AbstractOperator):
            yield from _field_differences(part, layout, path)


def _layers(control: Any) -> int | None:
    """The number of layers of a control; `None` for other objects."""
    if not isinstance(control, AbstractControl):
        return None
    return eqx.filter_eval_shape(lambda control: control.layers, control)


def _field_differences(part: Any, layout: Any, path: str) -> Iterator[str]:
    for name in (field.name for field in dataclasses.fields(layout)):
        value = getattr(part, name, None)
        is_missing = value is None and (name in _NEUTRAL or not hasattr(part, name))
        if name not in _HARMLESS and not is_missing:
            yield from _differences(value, getattr(layout, name), f"{path}.{name}")


def _describe(x: Any) -> str:
    text = spell(x)
    if len(text) < 60:
        return text
    if isinstance(x, tuple):
        return ", ".join(type(y).__name__ for y in x)
    return type(x).__name__
