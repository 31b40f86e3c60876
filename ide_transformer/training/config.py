"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import diffrax
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_serializer,
    model_validator,
)

from ..errors import InputError
from .names import root_of
from .versions import VERSION, upgraded


class Section(BaseModel):
    """Unknown keys are refused, and nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


class Choice(Section):
    """One of several classes, by its name (the snake case of the class, or
    `package.module:Class`), and its options. The name alone will do.

    - `options`: arguments of its constructor, for example {terms: 3} of chebyshev.
    """

    kind: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    def key_of_kind(self, key: str) -> str:
        """Where the name is written, if the choice is at `key`."""
        return key

    def key_of_option(self, key: str, name: str) -> str:
        """Where the option `name` is written."""
        return f"{key}.options.{name}"

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        """What is given for the parameters of the class.

        **Arguments:**

        - `annotations`: the types of the parameters.
        """
        return self.options


class SectionChoice(Choice):
    """A choice that has a section of its own."""

    def key_of_kind(self, key: str) -> str:
        return f"{key}.kind"


class PartChoice(Choice):
    """A choice inside a section; written as its name where it has no options."""

    @model_serializer(mode="wrap")
    def _short(self, serialize: Any) -> Any:
        return serialize(self) if self.options else self.kind


class DataConfig(Section):
    """`data`: what is learned.

    - `name`: a task, for example `shakespeare`, `text`, `digits`, `mnist`.
    - `path`: a file or folder, for tasks that read one.
    - `tokenizer`: `characters`, or `bpe` for a byte-pair encoding.
    - `vocabulary`: tokens of the byte-pair encoding; 256 of them are the bytes.
    - `validation`: the part of a text that is held out.
    - `options`: further arguments of the task.
    """

    name: str = "shakespeare"
    path: Path | None = None
    tokenizer: str = "characters"
    vocabulary: Annotated[int, Field(gt=256)] = 512
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    options: dict[str, Any] = {}

    @property
    def task(self) -> "TaskChoice":
        """The task and what is set of this section."""
        keys = ("path", "tokenizer", "vocabulary", "validation")
        fields = type(self).model_fields
        given = {key: getattr(self, key) for key in keys}
        given = {key: x for key, x in given.items() if x != fields[key].default}
        if self.path is not None:
            given["path"] = str(self.path)
        return TaskChoice(kind=self.name, options=self.options, section=given)


class TaskChoice(Choice):
    """The task of the section `data`.

    - `section`: arguments that have a key of their own there.
    """

    section: dict[str, Any]

    def key_of_kind(self, key: str) -> str:
        return f"{key}.name"

    def key_of_option(self, key: str, name: str) -> str:
        own = name in DataConfig.model_fields
        return f"{key}.{name}" if own else super().key_of_option(key, name)

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.section, **self.options}


class ModelConfig(SectionChoice):
    """`model`: the operators and how inputs and outputs meet the equation."""

    kind: str = "language_model"
    # A checkpoint to go on from: a folder, or a package with weights. It gives the weights,
    # the sizes and the tokenizer; of this section only `context` is then free.
    pretrained: str | None = None
    width: PositiveInt = 128
    heads: PositiveInt = 4
    # Heads of the keys and values; default: as many as heads.
    key_value_heads: PositiveInt | None = None
    depth: PositiveInt = 4
    # Width inside the feed-forward; default: that of the operator.
    hidden: PositiveInt | None = None
    # Of the feed-forward.
    activation: str = "gelu"
    # In the order in which a block applies them.
    operators: Annotated[tuple[PartChoice, ...], Field(min_length=1)] = (
        PartChoice(kind="attention"),
        PartChoice(kind="feed_forward"),
    )
    # Initial rate of damping and of relaxation, per layer.
    damping: PositiveFloat = 0.1
    # Applied to the input of each operator (pre-norm).
    normalization: PartChoice = PartChoice(kind="layer_norm")
    # Applied to the embedded input; where the state is constrained, the constraint is.
    input_normalization: PartChoice = PartChoice(kind="free")
    # The set on which the state is kept (post-norm), one for each operator and interval.
    constraint: PartChoice = PartChoice(kind="free")
    bias: bool = False
    dropout: Fraction = 0.0
    # Standard deviation of the initial weights.
    std: PositiveFloat = 0.02
    # Language models.
    context: PositiveInt = 64
    # How attention sees positions. Where it does not, the model learns an embedding of them.
    positions: PartChoice = PartChoice(kind="no_positions")
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


class ControlConfig(SectionChoice):
    """`control`: how the weights depend on depth."""

    kind: str = "piecewise_constant"
    # The depth T at which the solution is read; default: one for each layer of model.depth.
    horizon: PositiveFloat | None = None


class SchemeConfig(SectionChoice):
    """A time-stepping scheme.

    - `sub_solver`: the scheme inside a scheme: of each operator in a splitting, of the step
      that half_solver, residual, velocity and steady_state wrap. Default: that of the scheme.
    """

    kind: str = "lie_trotter"
    sub_solver: "SchemeConfig | None" = None

    def key_of_option(self, key: str, name: str) -> str:
        inner = ("sub_solver", "solver")
        return f"{key}.sub_solver" if name in inner else super().key_of_option(key, name)

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        if self.sub_solver is None:
            return self.options
        inner = [
            name for name, x in annotations.items() if root_of(x) is diffrax.AbstractSolver
        ]
        if not inner:
            raise InputError(
                f"{key}.sub_solver: {self.kind} has no scheme inside it; drop it, or choose "
                f"for example {key}.kind=lie_trotter."
            )
        return {**self.options, inner[0]: self.sub_solver}


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


class GradientConfig(SectionChoice):
    """A gradient mode."""

    kind: str = "recompute"


class TrainingConfig(Section):
    """`training`: how long, and what is written when. All periods are in steps."""

    steps: PositiveInt = 2000
    batch_size: PositiveInt = 12
    seed: NonNegativeInt = 0
    # What is kept for the gradient: recompute, direct, recursive or reversible.
    gradient: GradientConfig = GradientConfig()
    # In which the operators compute their products; weights and state stay in float32.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
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

    version: int = VERSION
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    control: ControlConfig = ControlConfig()
    solver: SolverConfig = SolverConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, tree: Any) -> Any:
        return upgraded(tree) if isinstance(tree, dict) else tree

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
    def _warmup_fits(self):
        if self.optimizer.warmup >= self.training.steps:
            raise ValueError(
                f"optimizer.warmup={self.optimizer.warmup} must be less than training.steps="
                f"{self.training.steps}"
            )
        return self
