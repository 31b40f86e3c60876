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
    AbstractRandomOperator,
    Linear,
    PiecewiseConstant,
    Scaled,
    Tied,
    map_parts,
    merge_low_rank,
    parts,
    spelled,
    without_low_rank,
)
from ..errors import InputError
from ..models import Model
from .adapter import base_name, is_adapter, write_adapter
from .checkpoint import Checkpoint, base_of, find_pretrained, tokenizer_file
from .families import families
from .family import Family, Placement
from .files import own_file, read_json, write_archive, write_options, write_tensors
from .options import Options


# Fields that do not change outputs, for full-sized images and to rounding.
_FREE = frozenset({"area_weights", "compute_dtype", "dropout", "fixed_size", "gradient"})
_FREE |= {"max_steps", "steps_for"}
# Weights that a model may lack, and their value in a checkpoint.
_NEUTRAL = {"bias": 0, "gain": 1}


@checked
def save_pretrained(
    model: Model, path: str | Path, *, like: str | Path | None = None, adapter: bool = False
) -> None:
    """Write a model in a Hugging Face layout, for other libraries: the layout of the checkpoint
    `like`, or else GPT-2, Llama or ViT, whichever fits the model.

    **Arguments:**

    - `path`: a new folder, or a new file for glassllm.
    - `like`: the checkpoint from which the model was loaded. It provides options, the tokenizer
      and tensors that the model does not have, such as other heads. The model may have fewer
      layers.
    - `adapter`: write only the changes of low rank (`LowRank`), as an adapter of PEFT to the
      checkpoint `like`. Otherwise each is added to its matrix.

    Step sizes of layers (`Scaled`) become factors of the weights that write the rates, the
    output map of attention and the outer map of a feed-forward: `u + λ A(u)` with `W λ` and
    `b λ` for W and b.

    **Raises:** `InputError`, which names all differences, if the layout cannot express the
    model: its scheme, steps, constraint or operators; for an adapter also if other weights
    than its own differ from the checkpoint.
    """
    path = Path(path)
    model = _without_draws(model)
    if adapter:
        _save_adapter(model, path, like)
        return
    model = merge_low_rank(model)
    if like is not None:
        _save_like(base_of(find_pretrained(like)), model, path)
        return
    _check_new(path)
    model, family, options = _in_a_layout(model, path)
    path.mkdir(parents=True, exist_ok=True)
    named = {
        name if name.startswith(f"{family.head}.") else family.prefix + name: tensor
        for name, tensor in tensors_of(family.table(model)).items()
    }
    write_tensors(path, named)
    write_options(path / "config.json", {**options, "dtype": _dtype_of(model)})


def _save_like(source: Path, model: Model, path: Path) -> None:
    checkpoint = _without_layers(Checkpoint.open(source), model)
    model = _folded(model, checkpoint.skeleton)
    _check_new(path, source.is_file() and path.exists())
    _check_layout(model, checkpoint, source)
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
    options = dict(checkpoint.options.values)
    dtypes = dict.fromkeys(("dtype", "torch_dtype"), _dtype_of(model))
    options |= {name: dtype for name, dtype in dtypes.items() if name in options}
    if options != read_json(path / "config.json"):
        write_options(path / "config.json", options)


def _without_layers(checkpoint: Checkpoint, model: Model) -> Checkpoint:
    """The checkpoint without its last layers, with as many as the model has; unchanged if it
    has no more layers than the model."""
    layers = [x.layers for x in model.equations]
    stored = [_layers(x.control) or 0 for x in checkpoint.skeleton.equations]
    if layers == stored or len(layers) != len(stored):
        return checkpoint
    if any(own > there for own, there in zip(layers, stored, strict=True)):
        return checkpoint
    options = checkpoint.options
    family = checkpoint.family
    if not (changed := family.layers(layers, options.values)):
        return checkpoint
    options = Options({**options.values, **changed}, options.file)
    shorter = eqx.filter_eval_shape(family.build, options, frozenset(checkpoint.tensors))
    kept = {
        place.name.partition("{layer}")[0]: len(place.names())
        for place in family.table(shorter)
        if "{layer}" in place.name
    }

    def is_kept(name: str) -> bool:
        for prefix, number in kept.items():
            layer = name.removeprefix(prefix).partition(".")[0]
            if name.startswith(prefix) and layer.isdecimal() and int(layer) >= number:
                return False
        return True

    tensors = {
        original: checkpoint.tensors[name]
        for name, original in checkpoint.original.items()
        if is_kept(name)
    }
    return Checkpoint.check(options, tensors, options.file)


def _save_adapter(model: Model, path: Path, like: str | Path | None) -> None:
    if like is None:
        raise InputError(
            "An adapter changes a checkpoint: give like=…, from which the model began. A run "
            "without model.pretrained has none; write it whole."
        )
    found = find_pretrained(like)
    source = base_of(found)
    if source.is_file():
        raise InputError(f"{source}: PEFT has no adapters to it; drop adapter=True.")
    checkpoint = Checkpoint.open(source)
    _check_new(path)
    own = _folded(without_low_rank(model), checkpoint.skeleton)
    _check_layout(own, checkpoint, source)
    tables = (checkpoint.family.table(x) for x in (own, checkpoint.model(None)))
    for here, there in zip(*tables, strict=True):
        if not np.array_equal(here.weight, there.weight):
            raise InputError(
                f"{here.name} differs from {source}, and an adapter changes low ranks only; "
                "drop adapter=True."
            )
    base = base_name(found) if is_adapter(found) else str(like)
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
            + "\nUndo them (scheme and steps by model.on(Mesh(…))), or drop like=…: GPT-2, "
            "Llama and ViT may have other sizes."
        )


def _check_new(path: Path, taken: bool = False) -> None:
    if taken or path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"{path} is there already; give a new name.")


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
        folded = _folded(model, skeleton)
        faults[kind] = list(_differences(folded, skeleton, "model"))
        if not faults[kind]:
            return _filled(folded, skeleton), family, options
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


def _folded(model: Model, native: Model) -> Model:
    """A model with the step sizes of layers in its weights, and with one block instead of
    equal ones if the layout has one."""
    natives = iter(native.equations)
    return model.each_equation(lambda own: _equation_folded(own, next(natives, own)))


def _equation_folded(model: Model, native: Model) -> Model:
    control = model.control
    if not isinstance(control, PiecewiseConstant | Tied):
        return model
    # The step sizes of DINOv2.
    stored = bool(parts(native.control, Scaled))

    def folded(scaled: Scaled, _: int) -> AbstractOperator:
        inner = scaled.operator
        if stored and not isinstance(inner, Scaled):
            return scaled
        whole = _in_weights(scaled, control.depth_axes)
        if whole is scaled or not isinstance(whole, Scaled):
            return whole
        return folded(whole, 0)

    control = map_parts(control, Scaled, folded)
    if isinstance(native.control, Tied) and isinstance(control, PiecewiseConstant):
        control = _one_block(control)
    return eqx.tree_at(lambda m: m.control, model, control)


def _in_weights(scaled: Scaled, depth_axes: int) -> AbstractOperator:
    """A with λ in the weights that write its rate; λ A itself if there are none."""
    rate = np.asarray(scaled.rate)
    if (rate == 1).all():
        return scaled.operator
    if _written_by(scaled) is None:
        return scaled
    # `[layers, 1 or features]`; of a tied block without layers.
    rate = rate if rate.ndim > depth_axes else rate[..., None]

    def times(x: Any) -> Any:
        factor = rate if x.ndim == rate.ndim else rate[..., None, :]
        return jax.device_put((np.asarray(x) * factor).astype(x.dtype))

    return eqx.tree_at(
        _written_by, scaled.operator, replace_fn=lambda linear: jax.tree.map(times, linear)
    )


def _written_by(operator: AbstractOperator) -> Linear | None:
    """The linear map whose output is the rate of an operator."""
    match operator:
        case Scaled():
            return _written_by(operator.operator)
        case AbstractAttention():
            return operator.output
        case AbstractFeedForward():
            return operator.outer
    return None


def _one_block(control: PiecewiseConstant) -> PiecewiseConstant | Tied:
    """Equal layers as one block; other ones unchanged."""
    stacks = jax.tree.leaves(eqx.filter(control.blocks, eqx.is_array))
    if any((np.asarray(x) != np.asarray(x[:1])).any() for x in stacks):
        return control
    block = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, control.blocks)
    return Tied(block, control.layers, control.interval_length)


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
                raise InputError(
                    f"{name} is one tensor here, but several different weights; make them "
                    "equal, as they are in layers that are left out or merged whole."
                )
            view[...] = part
    return tensors


def _differences(own: Any, native: Any, path: str) -> Iterator[str]:
    """Differences between two models except the values of weights."""
    if isinstance(native, jax.ShapeDtypeStruct) and hasattr(own, "shape"):
        if own.shape != native.shape:
            yield f"{path}: {own.shape} here, {native.shape} there"
    elif isinstance(native, AbstractControl) and _layers(own) not in (None, _layers(native)):
        yield f"{path}.layers: {_layers(own)} here, {_layers(native)} there"
    elif isinstance(native, Tied) and isinstance(own, PiecewiseConstant):
        yield (
            f"{path}: layers that differ here, one block for all there; leave out whole layers "
            "(keep_layers), without merging them or fitting their step sizes"
        )
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
