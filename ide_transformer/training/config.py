"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)


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
                "sourced_attention",
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


class GradientConfig(Section):
    """A gradient mode, by the name of its class; a name alone will do."""

    kind: str = "recompute"
    # Arguments of its class, for example {levels: 3} of recursive.
    options: dict[str, Any] = {}


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

    @field_validator("gradient", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


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
