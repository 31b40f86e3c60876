"""Loads the model of a run or a checkpoint, and what can be chosen of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import equinox as eqx
import jax

from ...arguments import checked
from ...errors import InputError
from ...models import Model, is_built_as
from ...pretrained import find_pretrained, load_pretrained
from ...tasks import AbstractTokenizer, PretrainedTokenizer
from ..configuration.config import NATIVE, Config, SolverConfig
from ..configuration.files import apply_overrides
from ..configuration.reader import find, parameters_of
from ..configuration.section import validated
from ..steps.build import build_model_of_size, build_task, causal, task_class, with_solver
from ..steps.schedule import first_model, programs_of
from ..steps.step import Weights, weights_of
from .checkpoints import Checkpoints, Which
from .run_folder import RunFolder


M = TypeVar("M", bound=Model)

_WHERE = "the command line"


class LoadedModel(NamedTuple):
    """A model and its origin; `run` is `None` for a checkpoint, and so is `config`, which names
    the data on which the model of a run is evaluated. `named` says that they are others than
    those of the run on purpose, `foreign` that they are from another file, with other data, of
    which an evaluation takes all."""

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
        """The model, which has to be such as this function builds, see `is_built_as`; else an
        `InputError` ends with `otherwise`."""
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
    """The model of a run or of a checkpoint, solved by its own scheme or by another, with its
    tokenizer.

    **Arguments:**

    - `path`: the folder of a run, its name in `runs`, or what `load_pretrained` takes.
    - `overrides`: `solver.key=value` of the scheme, as in the configuration of a run; of a run
      also `data.path=value` and `data.options.key=value` of its task for other data, and
      `model.context=value` for longer inputs. All samples of another file are measured, unless
      `data.validation=value` or `data.test=value` say how many.
    - `checkpoint`, `weights`, `trust`: of a run, see `load_run`.

    **Raises:** `InputError` where there is neither, the scheme is not known, or the weights do
    not fit what is chosen.
    """
    run = RunFolder(path)
    for_scheme = [x for x in overrides if x.partition("=")[0].split(".")[0] == "solver"]
    others = [x for x in overrides if x not in for_scheme]
    scheme = _scheme(for_scheme)
    if run.config.is_file():
        config, foreign = _chosen(run, others, trust=trust)
        of_data = held_out_whole(config) if foreign else config
        model, _ = restored(run, of_data, checkpoint, weights)
        named = any(override.startswith("data.") for override in others)
        loaded = LoadedModel(model, run, run.path, config, named, foreign)
    elif run.path.is_dir() and not (run.path / "config.json").is_file():
        raise InputError(
            f"{path} is neither the folder of a run, which has a config.yaml, nor that of a "
            "checkpoint, which has a config.json."
        )
    else:
        of_runs = [override.partition("=")[0] for override in others]
        of_runs += [f"checkpoint={checkpoint}"] * (checkpoint != "newest")
        of_runs += [f"weights={weights}"] * (weights != "trained")
        if of_runs:
            raise InputError(
                f"{', '.join(of_runs)}: the weights are given, and {path} is no run; only a "
                "scheme, such as solver.kind=strang, and --text FILE can be chosen here."
            )
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
    """The trained model of a run and its folder. The folder's `load_tokenizer` gives what
    `generate` needs to write text.

    A run that is refined (`training.schedule`) and was stopped on its way gives the model with
    the layers of that step.

    **Arguments:**

    - `checkpoint`: "newest"; "best", the one with the lowest validation loss on the way (see
      `training.keep_best`); or a step. For one that is damaged the newest before it is
      taken, with a warning.
    - `weights`: "trained", or "average" for their moving average (`training.average`).
    - `trust`: whether code that its configuration names, `package.module:Class`, may be
      imported and run.

    **Raises:** `InputError` if `path` is not the folder of a run with such a checkpoint, and
    for code that is not trusted.
    """
    folder = RunFolder(path)
    model, _ = restored(folder, folder.load_config(trust), checkpoint, weights)
    return model, folder


def restored(
    folder: RunFolder, config: Config, checkpoint: Which, weights: Weights
) -> tuple[Model, int]:
    """The model of a configuration with the weights of a checkpoint of a run, and its step."""
    average = config.training.average
    if weights == "average" and not average:
        raise InputError(
            f"weights=average: {folder.path} keeps no moving average of its weights; train it "
            "with training.average=0.999, say, or take weights=trained."
        )
    key = jax.random.key(0)  # the weights that it draws are replaced below
    sizes = _sizes(folder, config)
    model = first_model(config, lambda config: build_model_of_size(config, sizes, key))
    programs = programs_of(config, model)
    with Checkpoints(folder, config, writes=False) as checkpoints:
        state = checkpoints.restore(programs.shapes_at, checkpoint)
    step = int(state.step)
    program = programs.at(step)
    model = eqx.combine(weights_of(state, weights, average), program.static)
    return causal(config, program.solved(model)), step


def _sizes(folder: RunFolder, config: Config) -> dict[str, Any]:
    """The sizes of a model that the data of a run decide."""
    sizes = task_class(config).saved_sizes(folder.tokenizer)
    return build_task(config).sizes if sizes is None else sizes


def _scheme(overrides: Sequence[str]) -> SolverConfig:
    """The scheme that overrides `solver.key=value` describe; the own one without any."""
    tree: dict[str, Any] = {}
    origin = apply_overrides(tree, overrides)
    section = tree.get("solver", {"kind": NATIVE})
    if isinstance(section, dict) and "kind" not in section:
        raise InputError(
            f"{', '.join(origin)}: solver.kind is missing; write for example "
            "solver.kind=strang, or --mesh steps=2 for its own scheme."
        )
    here = {key.removeprefix("solver."): where for key, where in origin.items()}
    return validated(SolverConfig, section, _WHERE, here)


def _chosen(run: RunFolder, overrides: Sequence[str], *, trust: bool) -> tuple[Config, bool]:
    """The configuration of a run with overrides that leave its weights their shapes, and
    whether its data are from another file."""
    own = run.load_config(trust)
    tree = own.model_dump(mode="json")
    origin = apply_overrides(tree, overrides)
    free = ["model.context", "data.name", "data.path"]
    # Of other data: what is held out of those of the training is its own choice.
    free += ["data.validation", "data.test"] if "data.path" in origin else []
    foreign = [x for x in origin if x not in free and not x.startswith("data.options.")]
    if tree["data"]["name"] != own.data.name:
        foreign.append("data.name")
    if foreign:
        raise InputError(
            f"{', '.join(foreign)}: the weights are given; only solver.…, data.path, "
            "data.options.… and model.context can be chosen here, for example "
            "solver.kind=strang."
        )
    chosen = validated(Config, tree, _WHERE, origin) if origin else own
    if chosen.model.context != own.model.context:
        _check_context(chosen)
    divided = "data.validation" in origin or "data.test" in origin
    foreign = not divided and _is_foreign(run, own, chosen)
    if chosen != own:
        _check_weights(run, own, held_out_whole(chosen) if foreign else chosen)
    return chosen, foreign


def _is_foreign(run: RunFolder, own: Config, chosen: Config) -> bool:
    """Whether the data are from another file, with others than those of the run."""
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
    """The configuration with all samples in the validation part, where its task can do that."""
    kind = task_class(config)
    asked = parameters_of(task_class(config))
    if not kind.holds_out_all or "validation" not in asked:
        return config
    return config.changed("data", validation=1.0, **{"test": 0.0} if "test" in asked else {})


def _check_context(config: Config) -> None:
    """Refuses a context that neither the data nor the model would see."""
    if config.model.pretrained is None and not config.model.stages:
        kinds = task_class(config), find("model.kind", config.model.kind, Model)
        if not any("context" in parameters_of(kind) for kind in kinds):
            raise InputError(
                f"model.context={config.model.context}: neither {config.data.name} nor "
                f"{config.model.kind} takes a context; drop it."
            )


def _check_weights(run: RunFolder, own: Config, chosen: Config) -> None:
    """Refuses data and a context for which a model would have other weights."""
    sizes = _sizes(run, own)
    offered = build_task(chosen, run.known_tokenizer).sizes
    data = {name: offered[name] for name in sizes}

    def shapes(config: Config, sizes: dict[str, Any]) -> list[tuple[int, ...]]:
        model = eqx.filter_eval_shape(build_model_of_size, config, sizes, jax.random.key(0))
        return [x.shape for x in jax.tree.leaves(model) if hasattr(x, "shape")]

    expected = shapes(own, sizes)
    if expected != shapes(chosen, sizes):
        raise InputError(
            f"model.context={chosen.model.context}: the model learned an embedding of its "
            f"{own.model.context} positions. Train it with model.positions=rotary or others."
        )
    if expected != shapes(chosen, data):
        name = next(name for name in sizes if data[name] != sizes[name])
        raise InputError(
            f"data.options: these data have {name}={data[name]}, but the model was trained for "
            f"{name}={sizes[name]}."
        )
