"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import InputError


class Section(BaseModel):
    """Unknown keys are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


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
    # A checkpoint to go on from: a folder, or a package with weights. It gives the weights,
    # the sizes and the tokenizer; of this section only `context` is then free.
    pretrained: str | None = None
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
        tuple[
            Literal[
                "attention",
                "feed_forward",
                "feature_integral",
                "injected_attention",
                "damping",
                "relaxation",
            ],
            ...,
        ],
        Field(min_length=1),
    ] = ("attention", "feed_forward")
    # Initial rate of damping and of relaxation, per layer.
    damping: PositiveFloat = 0.1
    # Applied to the input of each operator (pre-norm).
    normalization: Literal["layer_norm", "rms_norm", "none"] = "layer_norm"
    # Applied to the embedded input; where the state is constrained, the constraint is.
    input_normalization: Literal["layer_norm", "rms_norm", "none"] = "none"
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

    @model_validator(mode="after")
    def _given_by_the_checkpoint(self):
        free = ("kind", "pretrained", "context")
        fixed = [
            name
            for name, field in type(self).model_fields.items()
            if name not in free and getattr(self, name) != field.default
        ]
        if self.pretrained is not None and fixed:
            raise ValueError(
                f"model.pretrained={self.pretrained} gives the model; drop "
                f"{', '.join(f'model.{name}' for name in fixed)}"
            )
        return self


class ControlConfig(Section):
    """`control`: how the weights depend on depth."""

    kind: str = "piecewise_constant"
    # Arguments of `build` of its class, for example {terms: 3} of chebyshev.
    options: dict[str, Any] = {}
    # The depth T at which the solution is read; default: one for each layer of model.depth.
    horizon: PositiveFloat | None = None


class SchemeConfig(Section):
    """A time-stepping scheme; names are those of the classes, in lower case."""

    kind: str = "lie_trotter"
    # The scheme inside a scheme: of each operator in a splitting, of the step that
    # half_solver, residual, velocity and steady_state wrap. A name, or a scheme with its own
    # kind, sub_solver and options. Default: that of the scheme.
    sub_solver: "SchemeConfig | None" = None
    # Arguments of its class, for example {momentum: 0.9} of nesterov.
    options: dict[str, Any] = {}

    @field_validator("sub_solver", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class SolverConfig(SchemeConfig):
    """`solver`: the time-stepping scheme and its steps."""

    steps_per_interval: PositiveInt = 1
    # Adaptive steps with these tolerances instead of equal ones.
    rtol: PositiveFloat | None = None
    atol: PositiveFloat | None = None
    max_steps: PositiveInt = 256
    # Whether adaptive steps are the same for a batch, or each sample has its own.
    steps_for: Literal["batch", "sample"] = "batch"

    @model_validator(mode="after")
    def _both_tolerances(self):
        if (self.rtol is None) != (self.atol is None):
            raise ValueError("solver.rtol and solver.atol go together; give both or neither")
        if self.rtol is None and self.steps_for == "sample":
            raise ValueError(
                "solver.steps_for=sample is for adaptive steps; give solver.rtol and "
                "solver.atol, or drop it"
            )
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
    # Weight of the transport cost ∫ |u_t|² dt in the loss.
    transport: NonNegativeFloat = 0.0
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

    @model_validator(mode="before")
    @classmethod
    def _native_scheme(cls, tree: Any) -> Any:
        model = tree.get("model") if isinstance(tree, dict) else None
        if isinstance(model, dict) and model.get("pretrained") and "solver" not in tree:
            return {**tree, "solver": {"kind": NATIVE}}
        return tree

    @model_validator(mode="after")
    def _checkpoint_fits(self):
        pretrained = self.model.pretrained
        if pretrained is None:
            if self.solver.kind == NATIVE:
                raise ValueError(
                    f"solver.kind={NATIVE} is the scheme of a checkpoint; give "
                    "model.pretrained, or another scheme such as lie_trotter"
                )
            return self
        if self.control != ControlConfig() or self.data.tokenizer != "characters":
            raise ValueError(
                f"model.pretrained={pretrained} gives the weights and the tokenizer; drop "
                "control and data.tokenizer"
            )
        return self

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
    tree = read_tree(path)
    tree.setdefault("name", path.stem)
    _, origin = read_overrides(overrides or [], tree)
    return validated(Config, tree, str(path), origin)


def read_overrides(
    overrides: list[str], tree: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Overrides `section.key=value` put into a tree of sections, and where each key in it was
    written."""
    tree = {} if tree is None else tree
    keys = {_override(tree, override): f"override {override!r}" for override in overrides}
    return tree, keys


def read_tree(path: Path) -> dict[str, Any]:
    """The sections of a YAML file, unchecked."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such configuration file.")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected sections such as `model:`, found {tree!r}.")
    return tree


def validated(
    kind: type[S], tree: dict[str, Any], where: str, origin: dict[str, str] | None = None
) -> S:
    """A tree as a section of that kind.

    **Arguments:**

    - `where`: where the tree was written, for errors.
    - `origin`: where single keys were written, if elsewhere.

    **Raises:** `InputError` that names every key in error.
    """
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(kind, item, origin or {}, where) for item in error.errors()]
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


def _problem(kind: type[Section], error: Any, origin: dict[str, str], where: str) -> str:
    """One line for one error of pydantic: what, where, why, and what to write instead."""
    location = [str(part) for part in error["loc"]]
    key = ".".join(location)
    where = origin.get(key, where)
    if error["type"] == "extra_forbidden":
        known = list(_section(kind, location[:-1]).model_fields)
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"Did you mean {close[0]}? " if close else ""
        return f"{where}: unknown key {key}. {hint}Known here: {', '.join(known)}."
    message = error["msg"].removeprefix("Value error, ")
    if not key:
        return f"{where}: {message}."
    if error["type"] == "value_error":
        return f"{where}: {message}."
    return f"{where}: {key}={error['input']!r}: {message}."


def _section(kind: type[Section], location: list[str]) -> type[Section]:
    """The class of the section at that place of the tree."""
    section: Any = kind
    for part in location:
        if part not in section.model_fields:
            continue  # the key of a mapping
        choices = _choices(section.model_fields[part].annotation)
        section = next(x for x in choices if isinstance(x, type) and issubclass(x, Section))
    return section


def _choices(annotation: Any) -> list[Any]:
    """All types inside an annotation."""
    return [annotation, *(y for x in get_args(annotation) for y in _choices(x))]
