"""The sections of a configuration that describe the model: its equation and its scheme."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from diffrax import AbstractSolver
from jaxtyping import Array

from ...arguments import Fraction, PositiveFloat
from ...equation import (
    AbstractBasis,
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    AbstractPositions,
)
from ...models import Model
from .reader import Spec
from .section import ClassSection, Count, Section, not_empty, part, section


# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


@section
class ControlConfig(ClassSection[AbstractControl]):
    """`control`: how the weights depend on depth.

    **Keys:**

    - `kind`: The control.
    - `horizon`: Depth T at which the solution is read. Default: model.layers.
    """

    root: ClassVar[type] = AbstractControl
    kind: str = "piecewise_constant"
    horizon: PositiveFloat | None = None


@section
class SolverConfig(ClassSection[AbstractSolver]):
    """`solver`: the time-stepping scheme and its steps.

    **Keys:**

    - `kind`: The scheme, for example strang(heun); native is the scheme of a checkpoint.
    - `steps`: Equal steps in each layer.
    - `rtol`: Relative tolerance of adaptive steps. Default: equal steps.
    - `atol`: Absolute tolerance. Set both tolerances or neither.
    - `max_steps`: Most adaptive steps in one layer.
    - `steps_for`: Choose adaptive steps for a whole batch, or for each sample.
    """

    root: ClassVar[type] = AbstractSolver
    further_names: ClassVar[tuple[str, ...]] = (NATIVE,)
    kind: str = "lie_trotter"
    steps: Count = 1
    rtol: PositiveFloat | None = None
    atol: PositiveFloat | None = None
    max_steps: Count = 256
    steps_for: Literal["batch", "sample"] = "batch"

    @property
    def label(self) -> str:
        """The scheme, with the scheme inside it, such as `strang(heun)`."""
        return NATIVE if self.kind == NATIVE else str(self.spec)

    def __post_init__(self) -> None:
        if self.kind == NATIVE:
            changes = ", ".join(name for name in self.changes() if name != "kind")
            self.require(not changes, "kind", f"it has its own steps; drop {changes}")
            return
        super().__post_init__()
        adaptive = self.rtol is not None
        self.require(self.atol is None or adaptive, "atol", "set rtol too, or drop it")
        self.require(self.atol is not None or not adaptive, "rtol", "set atol too, or drop it")
        by_sample = self.steps_for == "sample"
        self.require(adaptive or not by_sample, "steps_for", "it needs rtol and atol")
        self.require(not adaptive or self.steps == 1, "steps", "drop it, or rtol and atol")


Operators = Annotated[tuple[Spec[AbstractOperator], ...], not_empty]


@section
class StageConfig(Section):
    """A stage of `model.stages`: an equation on a grid of tokens. Each token embeds a window of
    the image, or of the states of the stage before.

    **Keys:**

    - `stride`: Pixels, or tokens of the stage before, from one window to the next.
    - `window`: Side of a window. Larger than the stride, windows overlap.
    - `width`: Default: model.width.
    - `heads`: Default: model.heads.
    - `layers`: Default: model.layers.
    - `hidden`: Default: model.hidden.
    - `operators`: Default: model.operators.
    - `control`: Default: the section control.
    - `solver`: Default: the section solver.
    """

    stride: Count = 2
    window: Count = 3
    width: Count | None = None
    heads: Count | None = None
    layers: Count | None = None
    hidden: Count | None = None
    operators: Operators | None = None
    control: ControlConfig | None = None
    solver: SolverConfig | None = None


@section
class LowRankConfig(Section):
    """Changes of low rank, `W + (alpha / rank) A B`, of frozen matrices W.

    **Keys:**

    - `rank`: Columns of A.
    - `alpha`: Size of the changes.
    - `targets`: Maps that change: query, key, value, output; inner, outer, gate; others by
      their names.
    """

    rank: Count = 8
    alpha: PositiveFloat = 16.0
    targets: Annotated[tuple[str, ...], not_empty] = ("query", "value")


# Options of a model that other sections set.
_SET_BY_SECTIONS = {"solver": "solver", "mesh": "solver"}
_SET_BY_SECTIONS |= {x: f"training.{x}" for x in ("gradient", "compute_dtype")}


@section
class ModelConfig(ClassSection[Model]):
    """`model`: the parts of the model, and its start.

    **Keys:**

    - `kind`: The model.
    - `pretrained`: Start from a checkpoint (a folder, a package with weights, or owner/name of
      the Hugging Face hub), which brings weights, sizes and tokenizer, so only `context` and
      `lora` of this section may be set; or from a run (its folder or name), which also brings
      its scheme and data, unless you set them.
    - `run`: Folder of that run. The new run writes this key.
    - `checkpoint`: Its checkpoint: newest, best (lowest validation loss), or a step.
    - `lora`: Train changes of low rank only (LoRA). Default: all weights.
    - `width`: Features of the state; with a basis, points of functions.
    - `basis`: Basis of weights as functions of a feature, for example cosine; nodal for
      matrices.
    - `modes`: Coefficients of a state. Default: width.
    - `heads`: Heads of the queries.
    - `key_value_heads`: Heads of the keys and values. Default: heads.
    - `layers`: Layers: intervals of the control.
    - `hidden`: Width inside the feed-forward. Default: the operator's.
    - `activation`: Activation of the feed-forward.
    - `operators`: Operators of a block, in the order in which it applies them.
    - `damping`: Initial rate of damping, relaxation and injection, per layer.
    - `normalization`: Applied to the input of each operator (pre-norm).
    - `input_normalization`: Applied to the embedded input; a constrained state has its
      constraint.
    - `constraint`: Set on which the state is kept (post-norm), one per operator and interval.
    - `bias`: Give linear maps and normalisations biases.
    - `dropout`: Probability of dropping an entry of the embedded input or of a rate.
    - `std`: Standard deviation of the initial weights.
    - `context`: Most tokens that a language model sees; grid points of an operator model.
    - `positions`: How attention sees positions; if it does not, an embedding is learned.
    - `tied`: Use the transposed embedding as the read-out of a language model.
    - `patch`: Side of a patch of an image classifier, in pixels.
    - `class_token`: Read the class of an image from a token of its own, not from the mean over
      patches.
    - `stages`: Equations on coarser and coarser grids of tokens. Default: one equation.
    """

    root: ClassVar[type] = Model
    kind: str = "language_model"
    pretrained: str | None = None
    run: str | None = None
    checkpoint: Literal["newest", "best"] | Count = "newest"
    lora: LowRankConfig | None = None
    width: Count = 128
    basis: Spec[AbstractBasis] = part("nodal")
    modes: Count | None = None
    heads: Count = 4
    key_value_heads: Count | None = None
    layers: Count = 4
    hidden: Count | None = None
    activation: Spec[Callable[[Array], Array]] = part("gelu")
    operators: Operators = part(("attention", "feed_forward"))
    damping: PositiveFloat = 0.1
    normalization: Spec[AbstractConstraint] = part("layer_norm")
    input_normalization: Spec[AbstractConstraint] = part("free")
    constraint: Spec[AbstractConstraint] = part("free")
    bias: bool = False
    dropout: Fraction = 0.0
    std: PositiveFloat = 0.02
    context: Count = 64
    positions: Spec[AbstractPositions] = part("no_positions")
    tied: bool = True
    patch: Count = 2
    class_token: bool = False
    stages: tuple[StageConfig, ...] = ()

    @property
    def side_of_token(self) -> int:
        """Pixels along each axis from one token of an image to the next, in the first stage."""
        return self.stages[0].stride if self.stages else self.patch

    @property
    def features(self) -> int:
        """Features of the state: coefficients of functions, or their points."""
        return self.width if self.modes is None else self.modes

    @property
    def is_functional(self) -> bool:
        """Whether the weights are coefficients of functions of a feature."""
        return self.basis.name != "nodal" or self.features != self.width

    @property
    def hidden_features(self) -> int | None:
        """`hidden` in features of the state."""
        return None if self.hidden is None else self.hidden * self.features // self.width

    def __post_init__(self) -> None:
        for name, instead in _SET_BY_SECTIONS.items():
            problem = f"{name} has no effect; use `{instead}:` instead"
            self.require(name not in self.options, "options", problem)
        if self.stages:
            self.require(self.patch == type(self).patch, "patch", "drop it; stages stride")
            self.require(not self.is_functional, "stages", "drop basis and modes")
        else:
            super().__post_init__()
        divides = (self.hidden or 0) * self.features % self.width == 0
        problem = f"times modes={self.features} it must be a multiple of width={self.width}"
        self.require(divides, "hidden", problem)
