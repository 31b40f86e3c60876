"""The sections `data`, `model`, `control` and `solver`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, model_validator

from ...equation import PointRule
from ...errors import InputError
from .optimizer import OptimizerConfig as OptimizerConfig
from .parallel import ParallelConfig as ParallelConfig
from .section import Count, Description, Fraction, Section


# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


class ClassSection(Section):
    """A section that chooses a class; its name alone will do."""

    # The name.
    kind: str
    # Arguments of the class, by name.
    options: dict[str, Any] = Field(default={})

    @property
    def description(self) -> dict[str, Any]:
        """The class and its arguments, see `read`."""
        return {"kind": self.kind, "options": self.options}

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


class ControlConfig(ClassSection):
    """`control`: how the weights depend on depth."""

    # The control.
    kind: str = "piecewise_constant"
    # Depth T at which the solution is read. Default: model.layers.
    horizon: PositiveFloat | None = None


class SolverConfig(ClassSection):
    """`solver`: the time-stepping scheme and its steps."""

    # The scheme, for example strang(heun), in parentheses the scheme inside it; native is the
    # scheme of a checkpoint.
    kind: str = "lie_trotter"
    # Equal steps in each layer.
    steps: Count = 1
    # Relative tolerance of adaptive steps. Default: equal steps.
    rtol: PositiveFloat | None = None
    # Absolute tolerance. Give both tolerances or neither.
    atol: PositiveFloat | None = None
    # Most adaptive steps in one layer.
    max_steps: Count = 256
    # Choose adaptive steps for a whole batch, or for each sample.
    steps_for: Literal["batch", "sample"] = "batch"

    def problems(self) -> Mapping[str, Any]:
        given = self.model_dump(exclude_defaults=True, exclude={"kind"})
        keys = ", ".join(f"solver.{name}" for name in given)
        adaptive = self.rtol is not None
        return {
            f"solver.kind={NATIVE} brings its own steps; drop {keys}": self.kind == NATIVE
            and given,
            "solver.rtol and solver.atol go together; give both or neither": adaptive
            != (self.atol is not None),
            "solver.steps_for=sample is for adaptive steps; give solver.rtol and solver.atol, "
            "or drop it": self.steps_for == "sample" and not adaptive,
            "solver.steps is for equal steps, solver.rtol for adaptive ones; drop one of "
            "them": adaptive and self.steps != 1,
        }


Operators = Annotated[tuple[Description, ...], Field(min_length=1, strict=False)]


class StageConfig(Section):
    """One of `model.stages`: an equation on a grid of tokens, embedded by windows of an image
    or of the states of the stage before."""

    # Pixels, or tokens of the stage before, from one window to the next.
    stride: Count = 2
    # Side of a window. Larger than the stride, windows overlap.
    window: Count = 3
    # Default: model.width.
    width: Count | None = None
    # Default: model.heads.
    heads: Count | None = None
    # Default: model.layers.
    layers: Count | None = None
    # Default: model.hidden.
    hidden: Count | None = None
    # Default: model.operators.
    operators: Operators | None = None
    # Default: the section control.
    control: ControlConfig | None = None
    # Default: the section solver.
    solver: SolverConfig | None = None


def _named(path: Any) -> Any:
    if path == "":
        raise ValueError("it names no file or folder; write . for the current one")
    return path


class DataConfig(Section):
    """`data`: what is learned."""

    # The task, for example shakespeare, text, arrays or maze.
    name: str = "shakespeare"
    # File or folder of a task that reads one.
    path: Annotated[Path | None, Field(strict=False), BeforeValidator(_named)] = None
    # Column of a table that holds the texts.
    column: str | None = None
    # `characters`, or `bpe` for a byte-pair encoding. Default for a text: characters.
    tokenizer: str | None = None
    # Tokens of the byte-pair encoding, with 256 bytes; or of integer arrays. Default for a
    # text: 512.
    vocabulary: Count | None = None
    # Fraction held out for validation: the end of a text, or some images or arrays. Default for
    # a text: 0.1.
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    # Fraction held out for the test: before validation in a text, or some arrays. Other tasks
    # have a test part. Default for a text: 0.
    test: Annotated[float, Field(ge=0, lt=1)] | None = None
    # Other arguments of the task.
    options: dict[str, Any] = Field(default={})

    @property
    def description(self) -> dict[str, Any]:
        """The task and its arguments, see `read`."""
        given = self.model_dump(mode="json", exclude_none=True, exclude={"name", "options"})
        return {"name": self.name, "options": {**given, **self.options}}

    def problems(self) -> Mapping[str, Any]:
        twice = sorted(self.options.keys() & type(self).model_fields)
        return {f"data.options.{x}: write data.{x} instead": True for x in twice}


class ModelConfig(ClassSection):
    """`model`: the parts of the model, and its start."""

    # The model.
    kind: str = "language_model"
    # Start from a checkpoint (a folder, or a package with weights), which brings weights, sizes
    # and tokenizer, so that of this section only `context` may be set; or from a run (its
    # folder or name), which also brings its scheme and data, unless you set them.
    pretrained: str | None = None
    # Folder of that run. The new run writes this key.
    run: str | None = None
    # Its checkpoint: newest, best (lowest validation loss), or a step.
    checkpoint: Literal["newest", "best"] | Count = "newest"
    # Features of the state; with a basis, points of functions.
    width: Count = 128
    # Basis of weights that are functions of a feature, for example cosine. nodal with as many
    # modes as features: ordinary matrices.
    basis: Description = "nodal"
    # Coefficients of a state. Default: width.
    modes: Count | None = None
    # The points of functions.
    feature_rule: PointRule = "midpoint"
    # Heads of the queries.
    heads: Count = 4
    # Heads of the keys and values. Default: heads.
    key_value_heads: Count | None = None
    # Layers: intervals of the control.
    layers: Count = 4
    # Width inside the feed-forward. Default: the operator's.
    hidden: Count | None = None
    # Activation of the feed-forward.
    activation: str = "gelu"
    # Operators of a block, in the order in which it applies them.
    operators: Operators = ("attention", "feed_forward")
    # Initial rate of damping, relaxation and injection, per layer.
    damping: PositiveFloat = 0.1
    # Applied to the input of each operator (pre-norm).
    normalization: Description = "layer_norm"
    # Applied to the embedded input; a constrained state has its constraint.
    input_normalization: Description = "free"
    # Set on which the state is kept (post-norm), one per operator and interval.
    constraint: Description = "free"
    # Give linear maps and normalisations biases.
    bias: bool = False
    # Probability of dropping an entry of the embedded input or of a rate.
    dropout: Fraction = 0.0
    # Probability of leaving out a layer in a training step.
    layer_drop: Fraction = 0.0
    # Standard deviation of the initial weights.
    std: PositiveFloat = 0.02
    # Most tokens that a language model sees; grid points of an operator model.
    context: Count = 64
    # How attention sees positions; if it does not, an embedding is learned.
    positions: Description = "no_positions"
    # Use the transposed embedding as the read-out of a language model.
    tied: bool = True
    # Side of a patch of an image classifier, in pixels.
    patch: Count = 2
    # Read the class of an image from a token of its own (of the last stage), not from the mean
    # over patches.
    class_token: bool = False
    # Equations on coarser and coarser grids of tokens. Default: one equation.
    stages: Annotated[tuple[StageConfig, ...], Field(strict=False)] = ()

    @property
    def side_of_token(self) -> int:
        """Pixels along each axis from one token of an image to the next, in the first stage."""
        return self.stages[0].stride if self.stages else self.patch

    @property
    def of_coefficients(self) -> "ModelConfig | None":
        """The ordinary model whose weights are coefficients; `None` where they are matrices,
        `InputError` where `hidden` features hold no whole number of coefficients."""
        modes = self.width if self.modes is None else self.modes
        if self.basis == "nodal" and modes == self.width:
            return None
        hidden, rest = divmod((self.hidden or 0) * modes, self.width)
        if rest:
            raise InputError(
                f"model.hidden={self.hidden} times model.modes={modes} is not a multiple of "
                f"model.width={self.width}; choose another of the three."
            )
        changes = dict(width=modes, hidden=hidden or None, basis="nodal", modes=None)
        return self.model_copy(update=changes)

    def problems(self) -> Mapping[str, Any]:
        patch = type(self).model_fields["patch"].default
        return {
            f"model.patch={self.patch}: stages have windows and no patches; drop it, or write "
            "the stride and the window of the first stage": self.stages and self.patch != patch,
            "model.stages and model.basis: stages have ordinary matrices; drop one": (
                self.stages and self.of_coefficients is not None
            ),
            f"model.checkpoint={self.checkpoint} is one of a run; give model.pretrained, or "
            "drop it": self.run is self.pretrained is None and self.checkpoint != "newest",
        }
