"""Loads the model of a run or a checkpoint, also with another scheme or other data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax

from ...arguments import checked
from ...errors import InputError
from ...models import STATISTICS, Model, is_built_as
from ...pretrained import find_pretrained, load_pretrained
from ...pretrained.adapter import is_adapter
from ...tasks import AbstractTokenizer, PretrainedTokenizer
from ...tasks.task import checksum_of_all
from ..configuration.config import NATIVE, Config, SolverConfig
from ..configuration.files import read_section
from ..configuration.reader import parameters_of
from ..configuration.text import apply_overrides
from ..steps.build import (
    build_model_of_size,
    build_programs,
    build_task,
    first_model,
    needs_of,
    task_class,
    with_solver,
)
from ..steps.step import Weights, weights_of
from .checkpoints import Checkpoints, Which
from .run_folder import RunFolder


M = TypeVar("M", bound=Model)

_WHERE = "the command line"


class LoadedModel(NamedTuple):
    """A model and its origin.

    - `run`: the folder of the run; `None` for a checkpoint.
    - `path`: the folder of the run or the checkpoint.
    - `config`: of the run, with the data for evaluations; `None` for a checkpoint.
    - `named`: whether the user chose other data than the data of the run.
    - `foreign`: whether these are from another file, so that an evaluation takes all of them.
    """

    model: Model
    run: RunFolder | None
    path: Path
    config: Config | None = None
    named: bool = False
    foreign: bool = False

    @property
    def measured(self) -> Model:
        """The model as evaluations solve it: in the precision of its run."""
        precision = None if self.config is None else self.config.training.precision
        return self.model.with_precision(precision)

    @property
    def tokenizer(self) -> AbstractTokenizer:
        """The tokenizer of the model."""
        if self.run is None:
            return PretrainedTokenizer.from_pretrained(self.path)
        if (known := self.run.known_tokenizer) is None:
            raise InputError(f"{self.path}: the run learned no text and has no tokenizer.")
        return known

    def expected(self, build: Callable[..., M], otherwise: str) -> M:
        """The model. Raises `InputError` with `otherwise` if `build` builds other models."""
        model = self.model
        if is_built_as(model, build):
            return cast(M, model)
        kinds = f"{type(model.inputs).__name__} and {type(model.read_out).__name__}"
        raise InputError(f"{self.path} holds a model of {kinds}{otherwise}.")


@checked
def load_model(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    checkpoint: Which = "newest",
    weights: Weights = "trained",
    trust: bool = False,
) -> LoadedModel:
    """The model of a run or of a checkpoint, with its tokenizer.

    **Arguments:**

    - `path`: the folder of a run, its name in `runs`, or what `load_pretrained` takes.
    - `overrides`: `solver.key=value` for another scheme. For a run also `data.path=value` and
      `data.options.key=value` for other data, and `model.context=value` for longer inputs. All
      samples of another file are measured, unless `data.validation` or `data.test` is given.
    - `checkpoint`, `weights`, `trust`: for a run, see `load_run`.

    **Raises:** `InputError` if there is neither, and if the weights do not fit the overrides.
    """
    run = RunFolder(path)
    folder = run.path
    for_scheme = [x for x in overrides if x.partition("=")[0].split(".")[0] == "solver"]
    others = [x for x in overrides if x not in for_scheme]
    scheme = _scheme(for_scheme)
    if run.config.is_file():
        config, foreign = _chosen(run, others, trust=trust)
        of_data = held_out_whole(config) if foreign else config
        model, _ = restored(run, of_data, checkpoint, weights)
        named = any(override.startswith("data.") for override in others)
        loaded = LoadedModel(model, run, folder, config, named, foreign)
    elif folder.is_dir() and not (is_adapter(folder) or (folder / "config.json").is_file()):
        raise InputError(f"{path} has neither the config.yaml of a run nor a config.json.")
    else:
        if others or (checkpoint, weights) != ("newest", "trained"):
            drop = ", ".join(others) or "checkpoint and weights"
            raise InputError(f"{path} is no run and takes only solver.kind=…; drop {drop}.")
        found = find_pretrained(path)
        loaded = LoadedModel(load_pretrained(found), None, found)
    return loaded._replace(model=with_solver(loaded.model, scheme))


@checked
def load_run(
    path: str | Path,
    *,
    checkpoint: Which = "newest",
    weights: Weights = "trained",
    trust: bool = False,
) -> tuple[Model, RunFolder]:
    """The trained model of a run and its folder, whose `load_tokenizer` serves `generate`.

    A run with `training.schedule` that was stopped early gives the layers of that step.

    **Arguments:**

    - `checkpoint`: "newest"; "best", the one with the lowest validation loss during the run
      (see `training.keep_best`); or a step. A damaged checkpoint is replaced by the newest one
      before it, with a warning.
    - `weights`: "trained", or "average" for their moving average (`training.average`).
    - `trust`: whether code that its configuration names, `package.module:Class`, may be run.

    **Raises:** `InputError` if there is no such checkpoint, and for code that is not trusted.
    """
    folder = RunFolder(path)
    model, _ = restored(folder, folder.load_config(trust), checkpoint, weights)
    return model, folder


def restored(
    folder: RunFolder, config: Config, checkpoint: Which, weights: Weights
) -> tuple[Model, int]:
    """The model of a configuration with the weights of a checkpoint, and its step."""
    average = config.training.average
    if weights == "average" and not average:
        raise InputError(f"weights=average: {folder.path} has training.average=0.")
    key = jax.random.key(0)  # the drawn weights are replaced below
    sizes = sizes_of(folder, config)

    def build(config: Config) -> Model:
        return build_model_of_size(config, sizes, key)

    model = first_model(config, build)
    programs = build_programs(config, model)
    with Checkpoints(folder) as checkpoints:
        state = checkpoints.restore(programs.shapes_at, checkpoint)
    step = int(state.step)
    program = programs.at(step)
    model = eqx.combine(weights_of(state, weights, average), program.static)
    model = program.evaluated(model)
    needs_of(config, sizes).check_causal(model)
    return model, step


def sizes_of(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The sizes of a model that depend on the data of a run. The data are not read if the
    folder has them; other data of a `config` give other sizes, but no other statistics."""
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    if sizes is not None:
        return sizes
    own = folder.load_config(config)
    kept = folder.load_sizes() or {}
    if kept and (config.data, config.model) == (own.data, own.model):
        return kept
    sizes = build_task(config).sizes
    if not kept:
        return sizes
    statistics = {name: x for name, x in kept.items() if name in STATISTICS}
    return {name: x for name, x in sizes.items() if name not in STATISTICS} | statistics


def checksum_of_weights(model: Model) -> str:
    """A short checksum of the weights of a model."""
    return checksum_of_all(eqx.filter(model, eqx.is_inexact_array))[:16]


def _scheme(overrides: Sequence[str]) -> SolverConfig:
    """The scheme that overrides `solver.key=value` describe; native without any."""
    tree: dict[str, Any] = {}
    origin = apply_overrides(tree, overrides)
    section = tree.get("solver", {"kind": NATIVE})
    if isinstance(section, dict) and "kind" not in section:
        write = "add solver.kind=strang, or give --mesh steps=2 for its own scheme"
        raise InputError(f"{', '.join(origin)}: solver.kind is missing; {write}.")
    here = {key.removeprefix("solver."): where for key, where in origin.items()}
    return read_section(SolverConfig, section, _WHERE, here)


def _chosen(run: RunFolder, overrides: Sequence[str], *, trust: bool) -> tuple[Config, bool]:
    """The configuration of a run with overrides, and whether its data are from another file."""
    own = run.load_config(trust)
    tree = own.as_tree()
    origin = apply_overrides(tree, overrides)
    free = ["model.context", "data.name", "data.path"]
    # Only other data may be divided differently.
    free += ["data.validation", "data.test"] if "data.path" in origin else []
    wrong = [x for x in origin if x not in free and not x.startswith("data.options.")]
    if tree["data"]["name"] != own.data.name:
        wrong.append("data.name")
    if wrong:
        free = "solver.…, data.path, data.options.… and model.context"
        raise InputError(f"{', '.join(wrong)}: the weights are given; only {free} can change.")
    if origin and (labels := run.load_labels()) is not None:
        # Another file may have fewer labels, and would number them on its own.
        tree["data"]["options"].setdefault("labels", labels)
    chosen = read_section(Config, tree, _WHERE, origin) if origin else own
    divided = "data.validation" in origin or "data.test" in origin
    foreign = not divided and _is_foreign(run, own, chosen)
    if chosen != own:
        _check_weights(run, own, held_out_whole(chosen) if foreign else chosen)
    return chosen, foreign


def _is_foreign(run: RunFolder, own: Config, chosen: Config) -> bool:
    """Whether the chosen data are from another file and differ from the data of the run."""
    there, here = (
        [x.data.path and x.data.path.resolve(), *map(x.data.options.get, ("subset", "split"))]
        for x in (own, chosen)
    )
    if there == here:
        return False
    try:
        return build_task(chosen, run.known_tokenizer).fingerprint() != run.data
    except InputError:
        return True  # such as a text that is too short to be divided


def held_out_whole(config: Config) -> Config:
    """The configuration with all samples in the validation part, if its task allows that."""
    kind = task_class(config)
    asked = parameters_of(kind)
    if not kind.holds_out_all or "validation" not in asked:
        return config
    return config.changed("data", validation=1.0, **{"test": 0.0} if "test" in asked else {})


def _check_weights(run: RunFolder, own: Config, chosen: Config) -> None:
    """Raises `InputError` if the chosen data or context need weights of other shapes."""
    # Statistics always come from the run, and no shape depends on them.
    sizes, offered = (
        {name: x for name, x in every.items() if name not in STATISTICS}
        for every in (sizes_of(run, own), build_task(chosen, run.known_tokenizer).sizes)
    )

    def shapes(config: Config, sizes: dict[str, Any]) -> list[tuple[int, ...]]:
        model = eqx.filter_eval_shape(build_model_of_size, config, sizes, jax.random.key(0))
        return [x.shape for x in jax.tree.leaves(model) if hasattr(x, "shape")]

    expected = shapes(own, sizes)
    if expected != shapes(chosen, sizes):
        what = f"model.context={chosen.model.context}: it learned {own.model.context} positions"
        raise InputError(f"{what}; train it with model.positions=rotary.")
    for name in sizes | offered:
        changed = {x: y for x, y in sizes.items() if x != name}
        changed |= {name: offered[name]} if name in offered else {}
        if changed != sizes and (name not in offered or shapes(chosen, changed) != expected):
            here, there = (
                f"{name}={x[name]}" if x.get(name) is not None else f"no {name}"
                for x in (offered, sizes)
            )
            raise InputError(
                f"data.path={chosen.data.path}: these data have {here}, and the model {there}; "
                f"pass data with the channels, parameters and classes of {run.path}."
            )
