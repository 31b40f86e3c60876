"""Reads and writes adapters of PEFT: low-rank changes of a checkpoint."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..equation import Linear, LowRank, map_parts, parts, without_low_rank
from ..errors import InputError
from ..models import Model
from .family import Family, Placement
from .files import read_json, tensors_in, write_options, write_tensors
from .options import Options


OPTIONS = "adapter_config.json"
_TENSORS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Options that change outputs, and their supported values.
_SUPPORTED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "alora_invocation_tokens": (None,),
    "bias": ("none",),
    # The other values also change the matrices of the checkpoint.
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
    "kasa_config": (None,),
    "layer_replication": (None,),
    "lora_bias": (False,),
    "modules_to_save": (None, []),
    "monteclora_config": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "use_bdlora": (None,),
    "use_dora": (False,),
    "use_qalora": (False,),
}


class Change(NamedTuple):
    """A change `(alpha / rank) up @ down` of a stored matrix `[out, in]`."""

    down: np.ndarray
    up: np.ndarray
    alpha: float

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def factor(self) -> float:
        return self.alpha / self.rank

    def plus(self, other: "Change") -> "Change":
        """The sum; its rank is the sum of both ranks."""
        down = np.concatenate([self.down, other.down])
        up = np.concatenate([self.up, other.up * (other.factor / self.factor)], axis=1)
        return Change(down, up, self.factor * len(down))


def is_adapter(path: Path) -> bool:
    return (path / OPTIONS).is_file()


def base_name(folder: Path) -> str:
    """The name of the checkpoint that an adapter changes, in its options."""
    options = Options(read_json(folder / OPTIONS), folder / OPTIONS)
    name = options.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise options.refused("base_model_name_or_path", name, "not the name of a checkpoint")
    revision = options.get("revision", None)
    return f"{name}@{revision}" if revision and not Path(name).exists() else name


def with_adapter(model: Model, family: Family, folder: Path) -> Model:
    """The model of a checkpoint with the changes of an adapter. Raises `InputError` for
    adapters other than LoRA, and for tensors that belong to no linear map of the model."""
    changes = _read_changes(family, folder)
    applied = set()
    changed_maps: dict[int, LowRank] = {}
    maps = {id(part.weight): part for part in parts(model, Linear)}
    for place in family.table(model):
        by_layer = [changes.get(name) for name in place.names()]
        linear = maps.get(id(place.weight))
        if linear is None or not any(by_layer) or not _is_matrix(place):
            continue
        applied.update(place.names())
        changed_maps[id(place.weight)] = _low_rank(linear, place, by_layer, folder)
    if unknown := sorted(changes.keys() - applied):
        raise InputError(f"{folder}: {', '.join(unknown[:8])}: not a linear map of this model.")
    return map_parts(model, Linear, lambda x, _: changed_maps.get(id(x.weight), x))


def _read_changes(family: Family, folder: Path) -> dict[str, Change]:
    """The changes by the names of the tensors that they change."""
    options = Options(read_json(folder / OPTIONS), folder / OPTIONS)
    for name, values in _SUPPORTED.items():
        options.allow(name, *values)
    alpha = options.number("lora_alpha", 8)
    patterns = options.get("alpha_pattern", None) or {}
    if not isinstance(patterns, dict) or any(
        not re.fullmatch(r"\^?[\w.]+", name) or type(x) not in (int, float)
        for name, x in patterns.items()
    ):
        raise options.refused("alpha_pattern", patterns, "not numbers by the names of modules")
    by_root = options.flag("use_rslora", False)
    stored = tensors_in(folder, _TENSORS)
    pattern = re.compile(rf"{re.escape(_PREFIX)}(.+)\.lora_[AB]\.weight")
    modules = sorted({x[1] for x in map(pattern.fullmatch, stored) if x})
    pairs = {x: [f"{_PREFIX}{x}.lora_{factor}.weight" for factor in "AB"] for x in modules}
    if unpaired := sorted(stored.keys() ^ {name for pair in pairs.values() for name in pair}):
        raise InputError(
            f"{folder}: {', '.join(unpaired[:8])}: not in a pair of tensors lora_A and lora_B."
        )
    changes = {}
    for module, pair in pairs.items():
        down, up = (stored[x].read() for x in pair)
        if down.ndim != 2 or up.ndim != 2 or not 0 < len(down) == up.shape[1]:
            raise InputError(
                f"{folder}: {module}: {down.shape} and {up.shape} are not factors of a matrix."
            )
        scale = next((float(x) for key, x in patterns.items() if _matches(key, module)), alpha)
        scale *= len(down) ** 0.5 if by_root else 1
        changes[family.canonical(f"{module}.weight")] = Change(down, up, scale)
    return changes


def _matches(pattern: str, module: str) -> bool:
    return pattern == f"^{module}" or f".{module}".endswith(f".{pattern}")


def _is_matrix(place: Placement) -> bool:
    return place.axes in (None, (1, 0)) and place.shape is None


def _low_rank(
    linear: Linear, place: Placement, changes: list[Change | None], folder: Path
) -> LowRank:
    """A map with the changes of all layers. A layer without a change has A = 0 and B = 0."""
    strongest = max((x for x in changes if x is not None), key=lambda x: x.factor)
    rank = max(x.rank for x in changes if x is not None)
    *depth, width, out = linear.weight.shape
    dtype = np.dtype(linear.weight.dtype)
    down = np.zeros((len(changes), width, rank), dtype)
    up = np.zeros((len(changes), rank, out), dtype)
    for layer, change in enumerate(changes):
        if change is None:
            continue
        shape = change.up.shape[0], change.down.shape[1]
        expected = (place.sharing * out, width)
        if shape != expected:
            name = place.names()[layer]
            raise InputError(f"{folder}: {name}: a change of {shape}, expected {expected}.")
        rows = change.up if place.rows is None else change.up[place.rows]
        down[layer, :, : change.rank] = change.down.T
        scale = place.scale * change.factor / strongest.factor
        up[layer, : change.rank] = scale * rows.T.astype(dtype)
    alpha = strongest.alpha * (rank / strongest.rank)
    down, up = (jax.device_put(x.reshape(*depth, *x.shape[1:])) for x in (down, up))
    return LowRank(linear, down, up, alpha)


def write_adapter(
    path: Path,
    model: Model,
    family: Family,
    modules: Mapping[str, str],
    options: Mapping[str, Any],
) -> None:
    """Write the low-rank changes of a model as an adapter. `modules` maps the family's names of
    matrices to modules of the original library; `options` are more options of the adapter."""
    maps = {id(part.linear.weight): part for part in parts(model, LowRank)}
    if not maps:
        raise InputError("The model has no low-rank changes; train it with model.lora.")
    table = family.table(without_low_rank(model))
    placed = [(place, maps[id(place.weight)]) for place in table if id(place.weight) in maps]
    changes = {modules[name]: change for name, change in _changes_by_tensor(placed).items()}
    names = {module: _shortest_suffix(module, changes, modules.values()) for module in changes}
    first = next(iter(changes.values()))
    exceptions = {
        module: x
        for module, x in changes.items()
        if (x.rank, x.alpha) != (first.rank, first.alpha)
    }
    adapter_options = {
        "peft_type": "LORA",
        "r": first.rank,
        "lora_alpha": _as_integer(first.alpha),
        "lora_dropout": 0.0,
        "rank_pattern": {module: x.rank for module, x in exceptions.items()},
        "alpha_pattern": {module: _as_integer(x.alpha) for module, x in exceptions.items()},
        "target_modules": sorted(set(names.values())),
        # Whether matrices are stored as `[in, out]`.
        "fan_in_fan_out": any(place.axes is None for place, _ in placed),
        "bias": "none",
        "inference_mode": True,
    }
    path.mkdir(parents=True, exist_ok=True)
    pairs = [(module, "A", x.down) for module, x in changes.items()]
    pairs += [(module, "B", x.up) for module, x in changes.items()]
    tensors = {f"{_PREFIX}{module}.lora_{side}.weight": x for module, side, x in pairs}
    write_tensors(path, tensors, _TENSORS)
    write_options(path / OPTIONS, {**options, **adapter_options})


def _changes_by_tensor(placed: Iterable[tuple[Placement, LowRank]]) -> dict[str, Change]:
    """The changes by the names of the tensors that they change."""
    changes: dict[str, Change] = {}
    for place, part in placed:
        if not _is_matrix(place) or place.repeated:
            raise InputError(f"{place.name} is not a matrix that an adapter can change.")
        down, up = (np.asarray(x) for x in (part.down, part.up))
        if not place.layered:
            down = down[None]
            up = up[None]
        rows = slice(None) if place.rows is None else place.rows
        for name, layer_down, layer_up in zip(place.names(), down, up, strict=True):
            stored_up = np.zeros((place.sharing * up.shape[-1], up.shape[-2]), up.dtype)
            stored_up[rows] = layer_up.T / place.scale
            change = Change(layer_down.T, stored_up, part.alpha)
            changes[name] = changes[name].plus(change) if name in changes else change
    return changes


def _shortest_suffix(module: str, changed: Iterable[str], modules: Iterable[str]) -> str:
    """The shortest end of a module's name that no unchanged module has."""
    unchanged = set(modules) - set(changed)
    words = module.split(".")
    ends = (".".join(words[-n:]) for n in range(1, len(words)))
    unique = (x for x in ends if not any(f".{other}".endswith(f".{x}") for other in unchanged))
    return next(unique, module)


def _as_integer(x: float) -> int | float:
    return int(x) if x == int(x) else x
