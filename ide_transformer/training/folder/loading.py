"""The models of runs and of checkpoints, what can be chosen of them, and how runs begin and go
on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from ...arguments import checked
from ...errors import InputError
from ...models import LanguageModel, Model, is_built_as
from ...pretrained import find_pretrained, load_pretrained
from ...tasks import AbstractTask, AbstractTokenizer, PretrainedTokenizer
from ...tasks.task import checksum_of_all
from ..configuration.config import Config
from ..configuration.files import apply_overrides, config_of
from ..configuration.model import NATIVE, SolverConfig
from ..configuration.reader import find, parameters_of
from ..configuration.section import validated
from ..configuration.training import PhaseConfig
from ..steps.build import (
    build_model,
    build_model_of_size,
    build_task,
    causal,
    task_class,
    with_solver,
    with_training,
)
from ..steps.optimizer import learning_rate
from ..steps.schedule import first_model, programs_of, weight_shapes
from ..steps.step import Weights, weights_of
from .checkpoints import Checkpoints, Which
from .run_folder import RunFolder, changed_values, new_folder, same_tokenizer


M = TypeVar("M", bound=Model)

_WHERE = "the command line"
# Keys in which the model of a run may differ from that of the run whose weights it takes, where
# the weights keep their shapes.
_FREE = {"context", "width", "layers", "dropout", "layer_drop", "run", "checkpoint", "horizon"}


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
        model: Any = self.model
        if is_built_as(model, build):
            return model
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


def import_pretrained(
    path: str | Path, name: str, runs: str | Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """A run from a checkpoint, `runs/name` at step 0: the weights of a language model and its
    tokenizer, or of a model of images; solved by its native scheme. `overrides` are further
    keys of its configuration, `key=value`; a model of images needs `data.name`, and `data.path`
    where the data are in a folder. `InputError` for a checkpoint of another kind than the data
    need.
    """
    found = find_pretrained(path)
    # A path is kept whole, so that the run can be read from anywhere.
    kept = str(found.resolve()) if Path(path).exists() else str(path)
    runs = Path(runs)
    tree: dict[str, Any] = {"name": name, "model": {"pretrained": kept}}
    origin = apply_overrides(tree, overrides)
    config = config_of(tree, f"{runs / name}", origin)
    key = jax.random.key(config.training.seed)
    model = build_model_of_size(config, {}, key)
    if is_built_as(model, LanguageModel) and "model.context" not in origin:
        # Its data are texts that the model can take.
        context = min(config.model.context, model.inputs.context)
        config = config.changed("model", context=context)
    state = programs_of(config, model).start(model, key)

    def save(tokenizer: Path) -> None:
        if is_built_as(model, LanguageModel):
            PretrainedTokenizer.from_pretrained(found).save(tokenizer)

    folder = new_folder(config, runs, save)
    with folder.sole_use(), Checkpoints(folder, config, writes=True) as checkpoints:
        checkpoints.save(0, state)
    return folder


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
    model: Any = eqx.combine(weights_of(state, weights, average), program.static)
    return causal(config, program.solved(model)), step


class Start(NamedTuple):
    """The model and the key with which the training of a run starts.

    - `origin`: a checksum of the weights where they are those of a run or a checkpoint, and of
      a run its number and the step; else `None`.
    """

    model: Model
    key: PRNGKeyArray
    origin: dict[str, Any] | None


def build_start(
    config: Config, begun: RunFolder | None = None
) -> tuple[AbstractTask, Model, PRNGKeyArray, dict[str, Any] | None]:
    """The task with which the training of a run starts, and its `Start`. One that is `begun`
    asks no other run for tokenizer and weights."""
    task = build_task(config, None if begun is None else begun.known_tokenizer)
    start = starting_model(config, task, drawn=begun is not None)
    return task, start.model, start.key, start.origin


def starting_model(config: Config, task: AbstractTask, *, drawn: bool = False) -> Start:
    """The start of a run on these data; its weights are `drawn` also where those of another run
    are asked for."""
    model_key, key = jax.random.split(jax.random.key(config.training.seed))
    model = first_model(config, lambda config: build_model(config, task, model_key))
    origin: dict[str, Any] = {}
    if config.model.run is not None and not drawn:
        run = RunFolder(config.model.run)
        model, step = _with_weights_of_run(config, task, model, run)
        origin = {"run": run.identity, "step": step}
    if origin or config.model.pretrained is not None:
        origin["weights"] = checksum_of_weights(model)
    return Start(with_training(model, config.training), key, origin or None)


def checksum_of_weights(model: Model) -> str:
    """A short checksum of the weights of a model."""
    return checksum_of_all(eqx.filter(model, eqx.is_inexact_array))[:16]


def _with_weights_of_run(
    config: Config, task: AbstractTask, model: Model, run: RunFolder
) -> tuple[Model, int]:
    """The model with the weights of a run, and the step of these."""
    own = run.load_config(config)
    changed = {
        text.partition(":")[0].rpartition(".")[2]: text
        for text in changed_values(own, config)
        if text.startswith(("model.", "control."))
    }
    begins = f"model.pretrained={run.path}: "
    if wrong := [text for key, text in changed.items() if key not in _FREE]:
        raise InputError(f"{begins}it gives the model; drop what differs ({'; '.join(wrong)}).")
    if not same_tokenizer(run, task):
        raise InputError(
            f"{begins}the tokens of data.name={config.data.name} are not those of the run; "
            "take data that are read with its tokenizer."
        )
    there, step = restored(run, own, config.model.checkpoint, "trained")
    if config.solver != own.solver:
        there = with_solver(there, config.solver)
    fits = weight_shapes(there) == weight_shapes(model)
    if not fits and there.layers < own.model.layers:
        raise InputError(
            f"{begins}model.checkpoint={config.model.checkpoint} has {there.layers} layers "
            f"(training.schedule), and model.layers={config.model.layers}. Take a later one, "
            f"or write model.layers={there.layers} and "
            f"control.horizon={there.control.horizon:g}."
        )
    if not fits:
        free = [text for key, text in changed.items() if key not in ("run", "checkpoint")]
        raise InputError(
            f"{begins}its weights do not fit the model; drop what differs ("
            f"{'; '.join(free) or f'the sizes of the data, here {task.sizes}'})."
        )
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    taken = jax.tree.leaves(eqx.filter(there, eqx.is_inexact_array))
    combined: Any = eqx.combine(jax.tree.structure(weights).unflatten(taken), static)
    return combined, step


def configuration_of(folder: RunFolder, config: Config, *, restart: bool) -> Config:
    """The configuration by which a run goes on, see `train`. It writes nothing."""
    own = folder.load_config(config)
    steps = config.training.steps
    before = own.training.steps
    if not config.optimizer.restarts:
        config = config.changed("optimizer", restarts=own.optimizer.restarts)
    given = config.training.schedule
    kept = own.training.schedule
    # A run that was made longer has the steps at which its phases end in place of parts.
    in_parts = [any(isinstance(x.until, str) for x in schedule) for schedule in (given, kept)]
    if in_parts == [True, False] and _endless(given) == _endless(kept):
        config = config.changed("training", schedule=kept)
    free = {key: getattr(own.training, key) for key in own.training.FREE}
    others = changed_values(own, config.changed("training", **free, steps=before))
    if others or steps < before:
        raise InputError(
            f"--resume: {folder.path} was started with another configuration "
            f"({'; '.join(changed_values(own, config))}). Give the same one, with as many "
            "training.steps or more, or start a new run without --resume."
        )
    if steps == before and not restart:
        return config
    # It was, or will be, refined at the same steps, not at later ones.
    config = config.changed("training", schedule=own.training.schedule_in_steps)
    made = folder.newest_step or 0
    rate = learning_rate(own.optimizer, before)
    longer = learning_rate(config.optimizer, steps)
    numbers = jnp.arange(made)
    same = np.asarray(rate(numbers)) == np.asarray(longer(numbers))
    if same.all() and restart:
        raise InputError(
            f"--restart: {folder.path} has made {made} steps, with the learning rates of a run "
            f"of training.steps={steps}; drop it, or give more training.steps."
        )
    if same.all():
        return config
    now = np.asarray(rate(made)).item()
    possible = own.optimizer.schedule == "cosine" and now > 0
    if restart and possible:
        tree = config.model_dump(mode="json")
        tree["optimizer"]["restarts"] = {**own.optimizer.restarts, made: before}
        return validated(Config, tree, "--restart")
    cosine = f"Give --restart, so that another cosine falls from {now:.2g}, its rate now; or s"
    raise InputError(
        f"training.steps={steps}: {folder.path} has made {made} steps of {before}, and from "
        f"step {np.argmin(same) + 1} on at other learning rates than a run of {steps} steps "
        f"(optimizer.schedule={own.optimizer.schedule}). {cosine if possible else 'S'}tart a "
        f"new run with its weights, model.pretrained={folder.path}, and a schedule of its own."
    )


def _endless(schedule: Sequence[PhaseConfig]) -> list[PhaseConfig]:
    """Phases without their ends."""
    return [phase.model_copy(update={"until": None}) for phase in schedule]


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
