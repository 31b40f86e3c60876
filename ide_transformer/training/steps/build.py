"""Builds the task and the model that a configuration describes."""

import dataclasses
import functools as ft
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ... import models
from ...equation import FeatureDomain, FunctionSpace, partition_weights, with_low_rank
from ...errors import ConfigError, at
from ...memory import check_bytes
from ...models import Model, check_causal, is_built_as, kinds_of
from ...pretrained import find_pretrained, load_pretrained
from ...tasks import AbstractTask, AbstractTokenizer, PretrainedTokenizer, load_tokenizer
from ..configuration.config import Config, EquationConfig
from ..configuration.key import Key, path_of
from ..configuration.model import LowRankConfig, ModelConfig
from ..configuration.names import parameters_of, snake_case
from .equations import build_parts, with_solver
from .memory import size_bytes


def build_task(config: Config, tokenizer: AbstractTokenizer | None = None) -> AbstractTask:
    """The data of a run.

    **Arguments:**

    - `tokenizer`: used instead of a learned one, if the task takes a tokenizer. Default: the
      tokenizer of the run or checkpoint `model.pretrained`.
    """
    model = config.model
    data = config.data
    kind = task_class(config)
    offered: dict[str, Any] = {"context": model.context, "patch": model.side_of_token}
    if tokenizer is None and model.run is not None:
        file = Path(model.run, "tokenizer.json")
        tokenizer = load_tokenizer(file) if file.is_file() else None
    if tokenizer is not None:
        parameter = parameters_of(kind).get("tokenizer")
        if parameter is not None and AbstractTokenizer in get_args(parameter.annotation):
            offered["tokenizer"] = tokenizer
            data = data.replace(tokenizer=None)
    elif model.pretrained is not None and kind.model is models.LanguageModel:
        path = find_pretrained(model.pretrained)
        offered["tokenizer"] = PretrainedTokenizer.from_pretrained(path)
    return data.spec.make({AbstractTask: offered})


def task_class(config: Config) -> type[AbstractTask]:
    """The class of the task of a run. Reads no data."""
    return cast(type[AbstractTask], config.data.spec.part)


class ModelNeeds(NamedTuple):
    """Requirements of the data of a run for its model.

    - `data`, `key`: `data.name` and its key, for messages.
    - `builder`: a function that builds the models which learn the data.
    - `causal`: whether a token may see earlier tokens only.
    - `sizes`: arguments of the model that the data decide, for example `{"vocabulary": 84}`.
    """

    data: str
    key: Key
    builder: Callable[..., Model]
    causal: bool
    sizes: Mapping[str, Any]

    def check_causal(self, model: Model) -> None:
        """Raises `InputError` if a model sees tokens that it must not see."""
        if self.causal:
            check_causal(f"{self.key}={self.data}", model)

    def check_kind(self, model: ModelConfig) -> None:
        """Raises `InputError` if the models of `model.kind` cannot learn the data."""
        required_kinds = kinds_of(self.builder)
        pairs = zip(kinds_of(model.spec.part), required_kinds, strict=True)
        if not all(issubclass(a, b) or issubclass(b, a) for a, b in pairs):
            raise ConfigError(
                f"{model.key / 'kind'}={model.kind}: data.name={self.data} needs "
                f"{' and '.join(part.__name__ for part in required_kinds)}; set "
                f"model.kind={snake_case(self.builder.__name__)}, or model."
            )


def needs_of(config: Config, sizes: Mapping[str, Any]) -> ModelNeeds:
    """The requirements of the data of a run that have these sizes. Reads no data."""
    kind = task_class(config)
    causal = bool(config.data.options.get("causal", kind.causal))
    return ModelNeeds(config.data.name, config.data.key / "name", kind.model, causal, sizes)


def build_model(
    config: Config, task: AbstractTask, key: PRNGKeyArray, layers: int | None = None
) -> Model:
    """The model of a run, with weights drawn from `key`; on other `layers` up to the same depth
    if they are set.

    **Raises:** `InputError` for a run that does not fit into memory, before any weight is
    drawn; for a model that sees the tokens that it must predict.
    """
    pretrained = config.model.pretrained
    # A task of arrays decides by its data which models learn it.
    needs = needs_of(config, task.sizes)._replace(builder=task.model)
    build = ft.partial(_build, config, needs, layers=layers)
    try:
        model = build(key) if pretrained is not None else eqx.filter_eval_shape(build, key)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError):
        # A class that reads the values of its arrays cannot be built from shapes alone.
        model = build(key)
    if pretrained is not None:
        _check_tokens(config, task, model)
    check_memory(config, task, model)
    model = build(key) if pretrained is None else model
    needs.check_causal(model)
    return model


def check_memory(config: Config, task: AbstractTask, model: Model) -> None:
    """Raises `InputError` if the weights and a batch of a run need more memory than the machine
    has. `model` may hold shapes."""
    training = config.training
    # A weight that is trained has a gradient and, in AdamW, two moments.
    trained, frozen = partition_weights(model)
    size = 4 * size_bytes(trained) + size_bytes(frozen)
    size += training.batch_size * size_bytes(task.batch(0, 1, training.seed))
    size += 4 * training.part_size * task.tokens_per_sample * model.features
    # Names the largest keys in the error.
    sections = ("data", "model", "control")
    tree = {name: x for name, x in config.as_tree().items() if name in sections}
    numbers = [
        (x, path_of(key)) for key, x in jax.tree.leaves_with_path(tree) if type(x) is int
    ]
    largest = ", ".join(f"{key}={x}" for x, key in sorted(numbers, reverse=True)[:6])
    batch = f"training.batch_size={training.batch_size}"
    check_bytes("this run", size, f"Lower the larger ones of {largest} and {batch}.")


def build_model_of_size(
    config: Config, sizes: Mapping[str, Any], key: PRNGKeyArray, layers: int | None = None
) -> Model:
    """The model of a run, for a task of these `sizes`, for example `{"vocabulary": 84}`; for
    `layers` see `build_model`."""
    return _build(config, needs_of(config, sizes), key, layers)


def _build(
    config: Config, needs: ModelNeeds, key: PRNGKeyArray, layers: int | None = None
) -> Model:
    pretrained = config.model.pretrained
    equations = config.equations
    if layers is not None:
        equations = [equation.on_layers(layers) for equation in equations]
    if pretrained is not None:
        model = with_solver(_load_pretrained(config, needs), config.solver)
    elif config.model.stages:
        model = _build_stages(equations, needs, key)
    else:
        model = _build_equation(equations[0], needs, key)
    return with_lora(model, config.model.lora, key)


def with_lora(model: Model, config: LowRankConfig | None, key: PRNGKeyArray) -> Model:
    """The model, with the changes of low rank that `model.lora` describes."""
    if config is None:
        return model
    with at(config.key):
        return with_low_rank(model, config.rank, config.alpha, config.targets, key=key)


def _build_stages(
    equations: Sequence[EquationConfig], needs: ModelNeeds, key: PRNGKeyArray
) -> Model:
    """The model of `model.stages`. Only the last stage reads out classes."""
    stages: list[Any] = []
    sizes = {**needs.sizes, "classes": None}
    keys = jax.random.split(key, len(equations))
    for equation, stage_key in zip(equations, keys, strict=True):
        if equation is equations[-1]:
            sizes["classes"] = needs.sizes.get("classes")
        stage = _build_equation(equation, needs._replace(sizes=sizes), stage_key)
        if not isinstance(stage.inputs, models.ImageInputs):
            model = equation.model
            raise ConfigError(f"{model.key / 'kind'}={model.kind}: use image_stage for stages.")
        sizes["image_shape"] = (*stage.inputs.grid, stage.features)
        stages.append(stage)
    return models.StagedModel(tuple(stages))


def _build_equation(equation: EquationConfig, needs: ModelNeeds, key: PRNGKeyArray) -> Model:
    """The model of one equation."""
    model = equation.model
    needs.check_kind(model)
    *keys, model_key = jax.random.split(key, 3)
    offered = {**needs.sizes, **build_parts(equation, needs.causal, keys)}
    kinds = Model, models.AbstractInputs, models.AbstractReadOut
    built = model.spec.make(dict.fromkeys(kinds, offered), draws=model_key)
    built = with_solver(built, equation.solver)
    if not model.is_functional:
        return built
    domain = FeatureDomain(model.width)
    return dataclasses.replace(
        built, space=FunctionSpace(model.basis.make(), model.features, domain)
    )


def _load_pretrained(config: Config, needs: ModelNeeds) -> Model:
    """The model of a checkpoint. Raises `InputError` if it cannot learn the data."""
    path = config.model.pretrained
    assert path is not None
    model = load_pretrained(path)
    if not is_built_as(model, needs.builder):
        raise ConfigError(
            f"{config.model.key / 'pretrained'}={path} holds a model of "
            f"{type(model.inputs).__name__} and {type(model.read_out).__name__}; "
            f"data.name={needs.data} needs a {needs.builder.__name__}."
        )
    return model


def _check_tokens(config: Config, task: AbstractTask, model: Model) -> None:
    """Raises `InputError` if a checkpoint lacks tokens or classes of the data."""
    required = task.sizes.get("vocabulary", 0)
    available = getattr(model.inputs, "vocabulary", required)
    if (classes := task.sizes.get("classes")) is not None:
        outputs = eqx.filter_eval_shape(model, task.batch(0, 1, 0).inputs)
        required = classes
        available = outputs.shape[-1]
    if required > available:
        raise ConfigError(
            f"{config.model.key / 'pretrained'}={config.model.pretrained} has {available} "
            f"tokens or classes; the data have {required}."
        )
