"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import InputError


class Section(BaseModel):
    """Unknown keys are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(Section):
    """`data`: what is learned."""

    # `text` reads a file or folder at `path`, the two mnist a folder of IDX files.
    name: Literal["shakespeare", "text", "digits", "mnist", "fashion_mnist"] = "shakespeare"
    path: Path | None = None
    tokenizer: Literal["characters", "bpe"] = "characters"
    # Tokens of the byte-pair encoding; 256 of them are the bytes.
    vocabulary: Annotated[int, Field(gt=256)] = 512
    # The part of a text that is held out.
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def _path_where_needed(self):
        own = self.name in ("shakespeare", "digits")
        if not own and self.path is None:
            raise ValueError(f"data.name={self.name} reads from data.path; give it one")
        if own and self.path is not None:
            raise ValueError(
                f"data.name={self.name} comes with its own data; data.path is for "
                "data.name=text, mnist or fashion_mnist"
            )
        return self


class ModelConfig(Section):
    """`model`: the operators and how inputs and outputs meet the equation."""

    kind: Literal["language_model", "image_classifier"] = "language_model"
    width: PositiveInt = 128
    heads: PositiveInt = 4
    # Heads of the keys and values; default: as many as heads.
    key_value_heads: PositiveInt | None = None
    depth: PositiveInt = 4
    # Width of the feed-forward; default: 4 width, or 8/3 width for swiglu.
    hidden: PositiveInt | None = None
    activation: Literal["relu", "gelu", "gelu_tanh", "swiglu"] = "gelu"
    # The order of the operators in a block.
    operators: Annotated[
        tuple[Literal["attention", "feed_forward"], ...], Field(min_length=1)
    ] = ("attention", "feed_forward")
    # Applied to the input of each operator (pre-norm).
    normalization: Literal["layer_norm", "rms_norm", "none"] = "layer_norm"
    # The set on which the state is kept (post-norm), one for each operator and interval.
    constraint: Literal["free", "layer_norm", "rms_norm", "sphere", "rms_sphere"] = "free"
    bias: bool = False
    dropout: Fraction = 0.0
    # Standard deviation of the initial weights.
    std: PositiveFloat = 0.02
    # Language models.
    context: PositiveInt = 64
    positions: Literal["learned", "rotary"] = "learned"
    tied: bool = True
    # Image classifiers.
    patch: PositiveInt = 2
    class_token: bool = False


class ControlConfig(Section):
    """`control`: how the weights depend on depth."""

    kind: str = "piecewise_constant"


class SolverConfig(Section):
    """`solver`: the time-stepping scheme; names are those of the classes, in lower case."""

    kind: str = "lie_trotter"
    # How a splitting scheme solves each operator; default: that of the scheme.
    sub_solver: str | None = None
    steps_per_interval: PositiveInt = 1
    # Adaptive steps with these tolerances instead of equal ones.
    rtol: PositiveFloat | None = None
    atol: PositiveFloat | None = None
    max_steps: PositiveInt = 256

    @model_validator(mode="after")
    def _both_tolerances(self):
        if (self.rtol is None) != (self.atol is None):
            raise ValueError("solver.rtol and solver.atol go together; give both or neither")
        if self.rtol is not None and self.steps_per_interval != 1:
            raise ValueError(
                "solver.steps_per_interval is for equal steps, solver.rtol for adaptive ones; "
                "drop one of them"
            )
        return self


class OptimizerConfig(Section):
    """`optimizer`: AdamW, with a linear warm-up and a cosine to the final learning rate."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    final_learning_rate: NonNegativeFloat = 1e-4
    warmup: NonNegativeInt = 100
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    # Of matrices and embeddings; vectors (gains, biases) are not decayed.
    weight_decay: NonNegativeFloat = 0.1
    # The largest norm of a gradient.
    clip: PositiveFloat = 1.0


class TrainingConfig(Section):
    """`training`: how long, and what is written when. All periods are in steps."""

    steps: PositiveInt = 2000
    batch_size: PositiveInt = 12
    seed: NonNegativeInt = 0
    log_every: PositiveInt = 10
    evaluate_every: PositiveInt = 250
    # Held-out samples for the evaluations on the way; the last one takes all.
    evaluate_samples: PositiveInt = 1024
    checkpoint_every: PositiveInt = 500
    # Characters or tokens of text sampled at the end of a language run.
    sample: NonNegativeInt = 400


class Config(Section):
    """A run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    control: ControlConfig = ControlConfig()
    solver: SolverConfig = SolverConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fit(self):
        images = self.data.name in ("digits", "mnist", "fashion_mnist")
        if images != (self.model.kind == "image_classifier"):
            wanted = "image_classifier" if images else "language_model"
            raise ValueError(f"data.name={self.data.name} needs model.kind={wanted}")
        if self.model.width % self.model.heads:
            raise ValueError(
                f"model.heads={self.model.heads} does not divide model.width="
                f"{self.model.width}; choose a width that is a multiple of the heads"
            )
        if self.optimizer.warmup >= self.training.steps:
            raise ValueError(
                f"optimizer.warmup={self.optimizer.warmup} must be less than training.steps="
                f"{self.training.steps}"
            )
        return self


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """The configuration in a YAML file, with overrides `section.key=value` applied.

    **Raises:** `InputError` that names every key in error and where it was written.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such configuration file.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected sections such as `model:`, found {tree!r}.")
    tree.setdefault("name", path.stem)
    origin: dict[str, str] = {}
    for override in overrides or []:
        key = _override(tree, override)
        origin[key] = f"override {override!r}"
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(item, origin, path) for item in error.errors()]
        raise InputError("\n".join(problems)) from None


def dump_config(config: Config) -> str:
    """The configuration as YAML, every key written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _override(tree: dict[str, Any], override: str) -> str:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise InputError(
            f"{override!r} is not an override; write section.key=value, for example "
            "model.depth=8."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"{override!r}: {text!r} is not a YAML value.") from None
    branch = tree
    for part in parts[:-1]:
        branch = branch.setdefault(part, {})
        if not isinstance(branch, dict):
            raise InputError(f"{override!r}: {part} is a value, not a section.")
    branch[parts[-1]] = value
    return key


def _problem(error: Any, origin: dict[str, str], path: Path) -> str:
    """One line for one error of pydantic: what, where, why, and what to write instead."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    where = origin.get(key, str(path))
    if error["type"] == "extra_forbidden":
        section: Any = Config
        for part in location[:-1]:
            section = section.model_fields[part].annotation
        known = list(section.model_fields)
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        return f"{where}: unknown key {key}. {hint}Known here: {', '.join(known)}."
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return f"{where}: {message}."
    if error["type"] == "value_error":
        return f"{where}: {message}."
    return f"{where}: {key}={error['input']!r}: {message}."
