"""Loads the model of a run or a checkpoint, perhaps with another scheme or other data."""

import functools as ft
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax

from ...arguments import checked
from ...errors import InputError
from ...models import STATISTICS, Model, is_built_as
from ...pretrained import load_pretrained
from ...tasks import AbstractTokenizer, PretrainedTokenizer
from ...tasks.task import checksum_of_all
from ..configuration.config import Config
from ..configuration.files import read_section
from ..configuration.model import NATIVE, SolverConfig
from ..configuration.names import parameters_of
from ..configuration.text import apply_overrides
from ..steps.build import build_model_of_size, build_task, needs_of, task_class, with_solver
from ..steps.phases import build_first_model, make_phases
from ..steps.step import Weights, weights_of
from .checkpoints import Checkpoints, Which
from .run_folder import RunFolder


M = TypeVar("M", bound=Model)


class LoadedModel(NamedTuple):
    """A model and its origin.

    - `run`: the folder of the run; `None` for a checkpoint.
    - `path`: the folder of the run, or the checkpoint as `load_pretrained` takes it.
    - `config`: of the run, with the data for evaluations; `None` for a checkpoint.
    - `named`: whether the user chose other data than the data of the run.
    - `foreign`: whether evaluations hold out all samples, as for data from another file.
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
        if (tokenizer := self.run.load_tokenizer()) is None:
            raise InputError(f"{self.path}: the run learned no text and has no tokenizer.")
        return tokenizer

    def require(self, build: Callable[..., M]) -> M:
        """The model. Raises `InputError` if `build`, such as `LanguageModel`, builds others."""
        model = self.model
        if is_built_as(model, build):
            return cast(M, model)
        raise InputError(
            f"{self.path} holds a model of {type(model.inputs).__name__} and "
            f"{type(model.read_out).__name__}, expected {build.__name__}."
        )


@checked
def load_model(
    path: str | Path | RunFolder,
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
    run = path if isinstance(path, RunFolder) else RunFolder(path, trust=trust)
    for_scheme = [x for x in overrides if x.partition("=")[0].split(".")[0] == "solver"]
    for_run = [x for x in overrides if x not in for_scheme]
    solver = _read_solver(for_scheme)
    if run.config.is_file():
        config, data_config = _override_config(run, for_run)
        model, _ = restore_model(run, data_config, checkpoint, weights)
        is_named = any(override.startswith("data.") for override in for_run)
        is_foreign = data_config is not config
        model = with_solver(model, solver)
        return LoadedModel(model, run, run.path, config, is_named, is_foreign)
    if for_run or (checkpoint, weights) != ("newest", "trained"):
        raise InputError(
            f"{run.path} is not a run and only solver.… can change; drop "
            f"{', '.join(for_run) or 'checkpoint and weights'}."
        )
    return LoadedModel(with_solver(load_pretrained(run.path), solver), None, run.path)


@checked
def load_run(
    path: str | Path,
    *,
    checkpoint: Which = "newest",
    weights: Weights = "trained",
    trust: bool = False,
) -> tuple[Model, RunFolder]:
    """The trained model of a run and its folder, whose `load_tokenizer` serves `generate`.

    With `training.schedule` the model has the layers of the checkpoint's step.

    **Arguments:**

    - `checkpoint`: "newest"; "best", the one with the lowest validation loss during the run
      (see `training.keep_best`); or a step. A damaged checkpoint is replaced by the newest one
      before it, with a warning.
    - `weights`: "trained", or "average" for their moving average (`training.average`).
    - `trust`: whether code that its configuration names, `package.module:Class`, may be run.

    **Raises:** `InputError` if there is no such checkpoint, and for code that is not trusted.
    """
    folder = RunFolder(path, trust=trust)
    model, _ = restore_model(folder, folder.load_config(), checkpoint, weights)
    return model, folder


def restore_model(
    folder: RunFolder, config: Config, checkpoint: Which, weights: Weights
) -> tuple[Model, int]:
    """The model of a configuration with the weights of a checkpoint, and its step."""
    average = config.training.average
    if weights == "average" and not average:
        raise InputError(f"weights=average: {folder.path} has training.average=0.")
    key = jax.random.key(0)  # the drawn weights are replaced below
    sizes = sizes_of(folder, config)
    model = build_first_model(config, ft.partial(build_model_of_size, config, sizes, key))
    phases = make_phases(config, model)
    with Checkpoints(folder) as checkpoints:
        state = checkpoints.restore(phases.shapes_at, checkpoint)
    step = int(state.step)
    phase = phases.at(step)
    model = eqx.combine(weights_of(state, weights, average), phase.static)
    model = phase.for_evaluation(model)
    needs_of(config, sizes).check_causal(model)
    return model, step


def sizes_of(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The sizes of a model that follow from its data. The folder has the sizes for the data of
    the run. Other data change sizes, but not statistics."""
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    if sizes is not None:
        return sizes
    run_config = folder.load_config()
    run_sizes = folder.load_sizes() or {}
    if run_sizes and (config.data, config.model) == (run_config.data, run_config.model):
        return run_sizes
    sizes = build_task(config).sizes
    if not run_sizes:
        return sizes
    new = {name: x for name, x in sizes.items() if name not in STATISTICS}
    return new | {name: x for name, x in run_sizes.items() if name in STATISTICS}


def checksum_of_weights(model: Model) -> str:
    """A short checksum of the weights of a model."""
    return checksum_of_all(eqx.filter(model, eqx.is_inexact_array))[:16]


def _read_solver(overrides: Sequence[str]) -> SolverConfig:
    """The scheme that overrides `solver.key=value` describe; native without any."""
    tree: dict[str, Any] = {}
    places = apply_overrides(tree, overrides)
    section = tree.get("solver", {"kind": NATIVE})
    if isinstance(section, dict) and "kind" not in section:
        raise InputError(
            f"{', '.join(overrides)}: solver.kind is missing; add solver.kind=strang, or use "
            "--mesh steps=2 for its own scheme."
        )
    return read_section(SolverConfig, section, key="solver", places=places)


def _override_config(run: RunFolder, overrides: Sequence[str]) -> tuple[Config, Config]:
    """The configuration of a run with overrides, and the configuration for evaluations. They
    differ for data from another file, whose samples are all held out."""
    run_config = run.load_config()
    if not overrides:
        return run_config, run_config
    tree = run_config.as_tree()
    origin = apply_overrides(tree, overrides)
    free = ["model.context", "data.name", "data.path"]
    # Only other data may be divided differently.
    free += ["data.validation", "data.test"] if "data.path" in origin else []
    wrong = [x for x in origin if x not in free and not x.startswith("data.options.")]
    if tree["data"]["name"] != run_config.data.name:
        wrong.append("data.name")
    if wrong:
        raise InputError(
            f"{', '.join(wrong)}: the weights are given; only solver.…, data.path, "
            "data.options.… and model.context can change."
        )
    if (labels := run.load_labels()) is not None:
        # Another file may have fewer labels, and would number them on its own.
        tree["data"]["options"].setdefault("labels", labels)
    config = read_section(Config, tree, places=origin)
    is_divided = "data.validation" in origin or "data.test" in origin
    is_foreign = not is_divided and _has_foreign_data(run, config)
    data_config = hold_out_all(config) if is_foreign else config
    if config != run_config:
        run_sizes, sizes = sizes_of(run, run_config), sizes_of(run, data_config)
        check_weights_fit(run_config, run_sizes, data_config, sizes)
    return config, data_config


def _has_foreign_data(run: RunFolder, config: Config) -> bool:
    """Whether the data are from another file and differ from the data of the run."""
    run_source, source = (
        [x.path and x.path.resolve(), x.options.get("subset"), x.options.get("split")]
        for x in (run.load_config().data, config.data)
    )
    if run_source == source:
        return False
    try:
        return build_task(config, run.load_tokenizer()).fingerprint() != run.data
    except InputError:
        return True  # such as a text that is too short to be divided


def hold_out_all(config: Config) -> Config:
    """The configuration with all samples in the validation part, if its task allows that."""
    task = task_class(config)
    parameters = parameters_of(task)
    if not task.may_hold_out_all or "validation" not in parameters:
        return config
    no_test = {"test": 0.0} if "test" in parameters else {}
    return config.changed("data", validation=1.0, **no_test)


def check_weights_fit(
    run_config: Config, run_sizes: Mapping[str, Any], config: Config, sizes: Mapping[str, Any]
) -> None:
    """Raises `InputError` if other data, or another context, need weights of other shapes than
    a run has, whose model has the sizes `run_sizes`."""
    expected = _weight_shapes(run_config, run_sizes)
    if _weight_shapes(config, run_sizes) != expected:
        raise InputError(
            f"model.context={config.model.context}: the model learned "
            f"{run_config.model.context} positions; train it with model.positions=rotary."
        )
    # Statistics always come from the run.
    for name in (x for x in {**run_sizes, **sizes} if x not in STATISTICS):
        if _weight_shapes(config, {**run_sizes, name: sizes.get(name)}) != expected:
            of_data, of_model = (
                f"no {name}" if values.get(name) is None else f"{name}={values[name]}"
                for values in (sizes, run_sizes)
            )
            raise InputError(
                f"data.path={config.data.path}: these data have {of_data}, and the "
                f"model {of_model}; pass data with its channels, parameters and classes."
            )


def _weight_shapes(config: Config, sizes: Mapping[str, Any]) -> list[tuple[int, ...]]:
    model = eqx.filter_eval_shape(build_model_of_size, config, sizes, jax.random.key(0))
    return [x.shape for x in jax.tree.leaves(model) if hasattr(x, "shape")]
