"""Choices on the command line for a trained model: its scheme, and of a run also other data of
its task and a longer context."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax

from ..errors import InputError
from .build import build_model_of_size, build_task, task_class
from .config import NATIVE, Config, SolverConfig
from .construct import takes
from .folder import RunFolder
from .loading import run_sizes
from .names import find
from .reading import apply_overrides, validated


_WHERE = "the command line"
_FREE = "model.context", "data.name", "data.path"


def split_overrides(overrides: Sequence[str]) -> tuple[SolverConfig, list[str]]:
    """The scheme that overrides `solver.key=value` describe, by default the own one, and
    the other overrides."""
    for_scheme = [x for x in overrides if x.partition("=")[0].split(".")[0] == "solver"]
    return _scheme(for_scheme), [x for x in overrides if x not in for_scheme]


def chosen_config(run: RunFolder, overrides: Sequence[str], *, trust: bool) -> Config:
    """The configuration of a run with overrides `data.path=value`, `data.options.key=value` and
    `model.context=value`, for a model with the weights of the run. `data.name` can be said
    again.

    **Raises:** `InputError` for another override, and where the weights do not fit.
    """
    config = run.load_config(trust)
    if not overrides:
        return config
    tree = config.model_dump(mode="json")
    origin = apply_overrides(tree, overrides)
    foreign = [x for x in origin if x not in _FREE and not x.startswith("data.options.")]
    if tree["data"]["name"] != config.data.name:
        foreign.append("data.name")
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: the weights are given; only solver.…, data.path, "
            "data.options.… and model.context can be chosen here, for example "
            "solver.kind=strang."
        )
    chosen = validated(Config, tree, _WHERE, origin)
    if chosen.model.context != config.model.context:
        _check_context(chosen)
    if chosen != config:
        _check_weights(run, config, chosen)
    return chosen


def refuse_overrides(overrides: Sequence[str], path: Any) -> None:
    """Refuses what can be chosen of a run only."""
    if overrides:
        keys = ", ".join(x.partition("=")[0] for x in overrides)
        raise InputError(
            f"{keys}: the weights are given; only solver.… can be chosen here, for example "
            f"solver.kind=strang, since {path} is a checkpoint and no run."
        )


def _scheme(overrides: Sequence[str]) -> SolverConfig:
    tree: dict[str, Any] = {}
    origin = apply_overrides(tree, overrides)
    section = tree.get("solver", {"kind": NATIVE})
    if isinstance(section, dict) and "kind" not in section:
        raise InputError(
            f"{', '.join(origin)}: solver.kind is missing; say which scheme, for example "
            "solver.kind=strang."
        )
    here = {key.removeprefix("solver."): where for key, where in origin.items()}
    return validated(SolverConfig, section, _WHERE, here)


def _check_context(config: Config) -> None:
    """Refuses a context that neither the data nor the model would see."""
    task = task_class(config)
    if config.model.pretrained is None and not config.model.stages:
        model = find("model.kind", config.model.kind, task.model)
        if not takes(task, "context") and not takes(model, "context"):
            raise InputError(
                f"model.context={config.model.context}: neither {config.data.name} nor "
                f"{config.model.kind} takes a context; drop it."
            )


def _check_weights(run: RunFolder, own: Config, chosen: Config) -> None:
    """Refuses data and a context for which a model would have other weights."""
    sizes = run_sizes(run, own)
    tokenizer = run.load_tokenizer() if run.tokenizer.exists() else None
    task = build_task(chosen, tokenizer)
    data = {name: task.sizes[name] for name in sizes}
    key = jax.random.key(0)

    def shapes(config: Config, sizes: dict[str, Any]) -> list[tuple[int, ...]]:
        model = eqx.filter_eval_shape(build_model_of_size, config, sizes, key)
        return [x.shape for x in jax.tree.leaves(model) if hasattr(x, "shape")]

    expected = shapes(own, sizes)
    if expected != shapes(chosen, sizes):
        raise InputError(
            f"model.context={chosen.model.context}: the model learned an embedding of its "
            f"{own.model.context} positions and knows no others. Train it with positions that "
            "go on, such as model.positions=rotary."
        )
    if expected != shapes(chosen, data):
        name = next(name for name in sizes if data[name] != sizes[name])
        raise InputError(
            f"data.options: these data have {name}={data[name]}, but the model was trained for "
            f"{name}={sizes[name]}."
        )
