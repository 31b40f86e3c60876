"""The configuration of a run: a tree of typed sections, filled by YAML and `a.b=value`."""

import copy
import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    cast,
    dataclass_transform,
)

from ...arguments import (
    Bound,
    Fraction as Fraction,
    NonNegativeFloat as NonNegativeFloat,
    PositiveFloat as PositiveFloat,
    PositiveFraction,
    above,
    at_least,
    below,
    checked,
)
from ...errors import InputError, shown


Class = TypeVar("Class", bound=type)
S = TypeVar("S", bound="Section")


class Converted(NamedTuple):
    """In `Annotated`: what a configuration writes is converted before it is checked."""

    convert: Callable[[Any], Any]


def is_folder_name(name: str) -> bool:
    """Whether a folder can have this name on every system."""
    devices = r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    letters = r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9]"
    return not re.fullmatch(devices, name) and re.fullmatch(letters, name) is not None


def _is_moment(value: int | str) -> bool:
    if isinstance(value, int):
        return 0 < value < 2**31
    part = re.fullmatch(r"(\d{1,3}(\.\d+)?)%", value)
    return part is not None and 0 < float(part[1]) < 100


def _is_description(value: str | dict[str, Any]) -> bool:
    if isinstance(value, str):
        return True
    return (
        isinstance(value.get("kind"), str)
        and isinstance(value.get("options", {}), dict)
        and not value.keys() - {"kind", "options"}
    )


def _without_empty_options(value: Any) -> Any:
    is_name = isinstance(value, dict) and value.keys() <= {"kind", "options"}
    return value["kind"] if is_name and "kind" in value and not value.get("options") else value


def _path_of(value: Any) -> Any:
    if value == "":
        raise InputError("it names no file or folder; use . for the current one.")
    return value


not_empty = Bound("at least one", len)
# Runs count in int32.
Count = Annotated[int, above(0), below(2**31)]
CountOrZero = Annotated[int, at_least(0), below(2**31)]
# A step of a run, or a part of all its steps such as "50%".
Moment = Annotated[int | str, Bound("a number of steps, or a part such as 50%", _is_moment)]
# A class by its name, or with arguments of its constructor; see `read`.
Description = Annotated[
    str | dict[str, Any],
    Bound("a name, or {kind: name, options: {argument: value}}", _is_description),
    Converted(_without_empty_options),
]
# JAX uses 32 bits of a seed; larger seeds would draw the same weights.
Seed = Annotated[int, at_least(0), below(2**32)]
# The name of a folder of results.
FolderName = Annotated[
    str, Bound("letters, digits and '-_.' that name a folder, such as small-2", is_folder_name)
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a configuration: values, which are checked, and nothing made of them."""

    def problems(self) -> Iterator[str]:
        """A message for each mistake of several keys together."""
        return iter(())

    def __post_init__(self) -> None:
        for problem in self.problems():
            raise InputError(f"{problem}.")

    @classmethod
    def complete(cls, tree: Any) -> Any:
        """The tree of a section, with what its keys decide of others."""
        return tree

    def replace(self: S, **values: Any) -> S:
        """The section with other values, which are not checked again."""
        section = copy.copy(self)
        vars(section).update(values)
        return section

    def as_tree(self) -> dict[str, Any]:
        """All values by their keys, as YAML holds them."""
        return {name: _plain(value) for name, value in _values(self).items()}

    def changes(self) -> dict[str, Any]:
        """The values that differ from the defaults."""
        return {
            field.name: value.changes() if isinstance(value, Section) else _plain(value)
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != _default(field)
        }


def _values(section: Section) -> dict[str, Any]:
    return {x.name: getattr(section, x.name) for x in dataclasses.fields(section)}


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.as_tree()
    if isinstance(value, dict):
        return {name: _plain(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return str(value) if isinstance(value, Path) else value


@dataclass_transform(frozen_default=True, kw_only_default=True)
def section(cls: Class) -> Class:
    """Makes a section: a frozen dataclass whose constructor checks its values."""
    return checked(dataclasses.dataclass(frozen=True, kw_only=True)(cls))


# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


@section
class ClassSection(Section):
    """A section that chooses a class. It may be written as the name alone."""

    # The name.
    kind: str
    # Arguments of the class, by name.
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def description(self) -> dict[str, Any]:
        """The class and its arguments, for `read`."""
        return {"kind": self.kind, "options": self.options}

    @classmethod
    def complete(cls, tree: Any) -> Any:
        return {"kind": tree} if isinstance(tree, str) else tree


@section
class ControlConfig(ClassSection):
    """`control`: how the weights depend on depth."""

    # The control.
    kind: str = "piecewise_constant"
    # Depth T at which the solution is read. Default: model.layers.
    horizon: PositiveFloat | None = None


@section
class SolverConfig(ClassSection):
    """`solver`: the time-stepping scheme and its steps."""

    # The scheme, for example strang(heun); native is the scheme of a checkpoint.
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

    def problems(self) -> Iterator[str]:
        others = [f"solver.{name}" for name in self.changes() if name != "kind"]
        if self.kind == NATIVE and others:
            yield f"solver.kind={NATIVE} has its own steps; drop {', '.join(others)}"
        if (self.rtol is None) != (self.atol is None):
            yield "solver.rtol and solver.atol: give both, or neither"
        if self.rtol is None and self.steps_for == "sample":
            yield "solver.steps_for=sample is for adaptive steps; give solver.rtol and atol"
        if self.rtol is not None and self.steps != 1:
            yield "solver.steps is for equal steps, solver.rtol for adaptive ones; drop one"


Operators = Annotated[tuple[Description, ...], not_empty]


@section
class StageConfig(Section):
    """A stage of `model.stages`: an equation on a grid of tokens. Each token embeds a window of
    the image, or of the states of the stage before."""

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


@section
class DataConfig(Section):
    """`data`: what is learned."""

    # The task, for example shakespeare, text, arrays or maze.
    name: str = "shakespeare"
    # File or folder of a task that reads one. Arrays: `.npz`, `.npy`, `.csv`, `.parquet`,
    # `.nc`, `.h5`, `.zarr`, a folder, or The Well or PDEBench
    # ([files](../how-to/own-data.md#files)).
    path: Annotated[Path | None, Converted(_path_of)] = None
    # Column of a table that holds the texts.
    column: str | None = None
    # `characters`, or `bpe` for a byte-pair encoding. Default for a text: characters.
    tokenizer: str | None = None
    # Tokens of the byte-pair encoding, with 256 bytes; or of integer arrays. Default for a
    # text: 512.
    vocabulary: Count | None = None
    # Fraction held out for validation, of a text its end. Default for a text: 0.1.
    validation: Annotated[float, above(0), below(1)] | None = None
    # Fraction held out for the test: before validation in a text, or some arrays. Other tasks
    # have a test part. Default for a text: 0.
    test: Fraction | None = None
    # Other arguments of the task.
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def description(self) -> dict[str, Any]:
        """The task and its arguments, for `read`."""
        keys = {name: x for name, x in self.as_tree().items() if x is not None}
        del keys["name"], keys["options"]
        return {"name": self.name, "options": {**keys, **self.options}}

    def problems(self) -> Iterator[str]:
        for name in sorted(self.options.keys() & _values(self).keys()):
            yield f"data.options.{name}: write data.{name} instead"


@section
class LowRankConfig(Section):
    """Changes of low rank, `W + (alpha / rank) A B`, of frozen matrices W."""

    # Columns of A.
    rank: Count = 8
    # Size of the changes.
    alpha: PositiveFloat = 16.0
    # Maps that change: query, key, value, output; inner, outer, gate; others by their names.
    targets: Annotated[tuple[str, ...], not_empty] = ("query", "value")


@section
class ModelConfig(ClassSection):
    """`model`: the parts of the model, and its start."""

    # The model.
    kind: str = "language_model"
    # Start from a checkpoint (a folder, a package with weights, or owner/name of the Hugging
    # Face hub), which brings weights, sizes and tokenizer, so only `context` and `lora` of this
    # section may be set; or from a run (its folder or name), which also brings its scheme and
    # data, unless you set them.
    pretrained: str | None = None
    # Folder of that run. The new run writes this key.
    run: str | None = None
    # Its checkpoint: newest, best (lowest validation loss), or a step.
    checkpoint: Literal["newest", "best"] | Count = "newest"
    # Train changes of low rank only (LoRA). Default: all weights.
    lora: LowRankConfig | None = None
    # Features of the state; with a basis, points of functions.
    width: Count = 128
    # Basis of weights as functions of a feature, for example cosine; nodal for matrices.
    basis: Description = "nodal"
    # Coefficients of a state. Default: width.
    modes: Count | None = None
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
    # Read the class of an image from a token of its own, not from the mean over patches.
    class_token: bool = False
    # Equations on coarser and coarser grids of tokens. Default: one equation.
    stages: tuple[StageConfig, ...] = ()

    @property
    def side_of_token(self) -> int:
        """Pixels along each axis from one token of an image to the next, in the first stage."""
        return self.stages[0].stride if self.stages else self.patch

    @property
    def of_coefficients(self) -> "ModelConfig | None":
        """The ordinary model whose weights are the coefficients; `None` if the weights are
        matrices. Raises `InputError` if `hidden` does not hold a whole number of them."""
        modes = self.width if self.modes is None else self.modes
        if self.basis == "nodal" and modes == self.width:
            return None
        hidden, rest = divmod((self.hidden or 0) * modes, self.width)
        if rest:
            what = f"model.hidden={self.hidden} times model.modes={modes}"
            raise InputError(f"{what}: take a multiple of model.width={self.width}.")
        changes = dict(width=modes, hidden=hidden or None, basis="nodal", modes=None)
        return self.replace(**changes)

    def problems(self) -> Iterator[str]:
        if self.stages and self.patch != type(self).patch:
            yield f"model.patch={self.patch}: stages have windows and no patches; drop it"
        if self.stages and self.of_coefficients is not None:
            yield "model.stages and model.basis: stages have ordinary matrices; drop one"
        if self.run is self.pretrained is None and self.checkpoint != "newest":
            yield f"model.checkpoint={self.checkpoint} is one of a run; give model.pretrained"


# Optional keys of the optimizer: the key on which each depends, and its values that use it.
_USED_BY = {
    "momentum": ("kind", ("muon",)),
    "final_learning_rate": ("schedule", ("cosine", "warmup_stable_decay")),
    "decay": ("schedule", ("warmup_stable_decay",)),
}


@section
class OptimizerConfig(Section):
    """`optimizer`: the update rule and the learning rate."""

    # lion: sign of a mean of gradients; its best rate is 3 to 10 times lower than adamw's, its
    # decay as much higher. muon: orthogonal updates of the operators' matrices, adamw for the
    # rest, at one rate.
    kind: Literal["adamw", "lion", "muon"] = "adamw"
    # Largest rate, after the warm-up.
    learning_rate: PositiveFloat = 1e-3
    # After the warm-up: cosine falls from the first step, constant stays, warmup_stable_decay
    # (default with layers in training.schedule) falls linearly at the end.
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] = "cosine"
    # Rate after the last step. Default: a tenth of the largest; for warmup_stable_decay 0.
    final_learning_rate: NonNegativeFloat | None = None
    # Steps in which the rate grows from 0.
    warmup: CountOrZero = 100
    # Fraction of the steps in which warmup_stable_decay falls. Default: 0.3.
    decay: PositiveFraction | None = None
    # Factors of the rate by the path of a weight or part: {"control": 0.5, "control.*.value":
    # 2}. * is any text; the last match counts; 0 freezes.
    groups: dict[str, NonNegativeFloat] = dataclasses.field(default_factory=dict)
    # Decay of the mean of gradients.
    beta1: Fraction = 0.9
    # Decay of the mean of squared gradients; for lion, of its mean of gradients.
    beta2: Fraction = 0.99
    # Decay of the mean of gradients that muon makes orthogonal. Default: 0.95.
    momentum: Fraction | None = None
    # Decay of matrices and embeddings; not of gains, biases and the network of a hypernetwork.
    weight_decay: NonNegativeFloat = 0.1
    # Largest norm of a gradient.
    clip: PositiveFloat = 1.0

    def problems(self) -> Iterator[str]:
        for name, (key, users) in _USED_BY.items():
            chosen = getattr(self, key)
            if getattr(self, name) is not None and chosen not in users:
                write = f"drop it, or write optimizer.{key}={' or '.join(users)}"
                yield f"optimizer.{key}={chosen} does not use optimizer.{name}; {write}"
        if self.lowest_rate > self.learning_rate:
            what = f"optimizer.final_learning_rate={self.final_learning_rate}"
            yield f"{what} is above optimizer.learning_rate={self.learning_rate}; lower it"

    @property
    def lowest_rate(self) -> float:
        """The rate to which a schedule falls: the rate of the step after the last one."""
        if self.final_learning_rate is not None:
            return self.final_learning_rate
        return 0.0 if self.schedule == "warmup_stable_decay" else self.learning_rate / 10

    def decaying_steps(self, steps: int) -> int:
        """The number of steps in which warmup_stable_decay falls; 0 for other schedules."""
        if self.schedule != "warmup_stable_decay":
            return 0
        return max(round((0.3 if self.decay is None else self.decay) * steps), 1)


# Arguments of a `Mesh`, by name.
MeshTree = dict[str, Any]


@section
class PhaseConfig(Section):
    """A phase of `training.schedule`: steps of the run on one mesh, or on several of which one
    is drawn for each step. A mesh gives any of layers, steps, horizon, tokens and width, see
    `Mesh`."""

    # The step at which the phase ends, or 50% of the steps. Default: the end of the run.
    until: Moment | None = None
    # Its mesh, for example {layers: 1}, also for the weights. Default: the mesh of the model.
    mesh: MeshTree | None = None
    # Several meshes in place of one, for example [{layers: 4}, {layers: 8}]. One is drawn for
    # each step; the weights keep model.layers.
    meshes: tuple[MeshTree, ...] = ()
    # How often each of them is drawn, in proportion. Default: equally often.
    weights: tuple[PositiveFloat, ...] = ()

    @property
    def layers(self) -> int | None:
        """The layers of its weights; `None` for the layers of the model."""
        return (self.mesh or {}).get("layers")

    def problems(self) -> Iterator[str]:
        if self.mesh is not None and self.meshes:
            yield "mesh and meshes: a phase has one mesh or draws one of several; drop one"
        if self.weights and len(self.weights) != len(self.meshes):
            yield f"weights={[*self.weights]}: give one for each of {len(self.meshes)} meshes"
        if type(self.layers) not in (int, NoneType):
            yield f"mesh.layers={shown(self.layers)}: Input should be a valid integer"


@section
class CostConfig(Section):
    """A running cost. A number alone gives its weight."""

    # Weight in the loss. With 0 the cost is logged only.
    weight: NonNegativeFloat
    # The class. Default: the name of the key.
    kind: str | None = None
    # Its other arguments, by name.
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def description(self, name: str) -> dict[str, Any]:
        """The class and arguments of the cost under the key `name`, for `read`."""
        return {"kind": self.kind or name, "options": {**self.options, "weight": self.weight}}

    @classmethod
    def complete(cls, tree: Any) -> Any:
        return {"weight": tree} if isinstance(tree, int | float) else tree


@section
class TrainingConfig(Section):
    """`training`: how a run trains, and what it writes when. Periods are in steps."""

    # Steps of the optimizer.
    steps: Count = 2000
    # Samples in a batch.
    batch_size: Count = 12
    # Equal parts of a batch, computed one after the other to save memory.
    accumulate: Count = 1
    # Decay of a moving average of the weights, for `evaluate --weights average`. 0: none;
    # 0.999: about 1,000 steps.
    average: Fraction = 0.0
    # Seed of the weights, the batches and the dropout.
    seed: Seed = 0
    # Gradient mode: what is kept for the gradient.
    gradient: Description = "recompute"
    # Dtype of matrix products. Weights and state stay float32. Evaluation uses it too; a model
    # you load yourself does not.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    # Phases of the run, each on meshes of its own. Coarse first: [{until: 50%, mesh: {layers:
    # 1}}] trains one layer for half of the steps, then the layers of the model. Any depth:
    # [{meshes: [{layers: 4}, {layers: 8}]}]. Default: one phase on the mesh of the model, which
    # also follows a last phase with `until`.
    schedule: tuple[PhaseConfig, ...] = ()
    # How a model gets more layers. refinement: the same θ(t) on more layers of the same depth.
    growth: Description = "refinement"
    # Running costs in the loss: {transport: 0.01}, or {contraction: {weight: 0.1, options:
    # {level: 1.0}}}. Of several equations, the last.
    costs: dict[str, CostConfig] = dataclasses.field(default_factory=dict)
    # Period of the lines in metrics.jsonl.
    log_every: Count = 10
    # Where these lines go too: tensorboard, wandb.
    trackers: tuple[Description, ...] = ()
    # Period of validation. The last step has one too.
    evaluate_every: Count = 250
    # Held-out samples of a validation. At the end one takes all.
    evaluate_samples: Count = 1024
    # Period of checkpoints, from which a run can be resumed.
    checkpoint_every: Count = 500
    # Newest checkpoints that are kept.
    keep: Count = 2
    # Also keep the checkpoint with the lowest validation loss.
    keep_best: bool = True
    # Skipped steps in a row before a run returns to its checkpoint; the second time it ends.
    max_bad_steps: Count = 10
    # Characters or tokens of text written at the end of a language run.
    sample: CountOrZero = 400

    # What is logged and kept. None of these keys changes what is learned.
    FREE: ClassVar = (
        "log_every",
        "trackers",
        "evaluate_every",
        "evaluate_samples",
        "checkpoint_every",
        "keep",
        "keep_best",
        "sample",
    )

    @property
    def precision(self) -> Literal["bfloat16"] | None:
        """The `compute_dtype` of a `Model`."""
        return None if self.compute_dtype == "float32" else self.compute_dtype

    @property
    def refines(self) -> bool:
        """Whether the number of layers may change during the run."""
        return any(phase.mesh is not None for phase in self.schedule)

    @property
    def phases(self) -> tuple[PhaseConfig, ...]:
        """The phases of the run. The last one lasts to its end."""
        whole = bool(self.schedule) and self.schedule[-1].until is None
        return self.schedule if whole else (*self.schedule, PhaseConfig())

    @property
    def begins(self) -> tuple[int, ...]:
        """The number of steps before each phase."""
        begins = [0]
        for phase in self.phases[:-1]:
            end = self.steps if phase.until is None else phase.until
            if isinstance(end, str):
                end = round(float(end[:-1]) / 100 * self.steps)
            begins.append(end)
        return tuple(begins)

    @property
    def schedule_in_steps(self) -> tuple[PhaseConfig, ...]:
        """The schedule, each percentage replaced by its step."""
        ends = zip(self.schedule, (*self.begins[1:], None), strict=False)
        return tuple(phase.replace(until=end) for phase, end in ends)

    def scheduled_as(self, own: "TrainingConfig") -> "TrainingConfig":
        """These settings with the schedule of the run `own`, if that is the schedule given here
        with each percentage replaced by a step. A run that was made longer has such a one."""
        given = [phase.replace(until=None) for phase in self.schedule]
        kept = [phase.replace(until=None) for phase in own.schedule]
        in_parts = any(isinstance(phase.until, str) for phase in self.schedule)
        in_steps = not any(isinstance(phase.until, str) for phase in own.schedule)
        if given == kept and in_parts and in_steps:
            return self.replace(schedule=own.schedule)
        return self

    @property
    def part_size(self) -> int:
        """Samples in one part of a batch; see `accumulate`."""
        return self.batch_size // self.accumulate

    def problems(self) -> Iterator[str]:
        begins = [*self.begins]
        if self.batch_size % self.accumulate:
            what = f"training.accumulate={self.accumulate}"
            yield f"{what} does not divide training.batch_size={self.batch_size}; change one"
        if any(phase.until is None for phase in self.schedule[:-1]):
            yield "training.schedule: give all phases but the last until, such as until: 50%"
        if begins != sorted({begin for begin in begins if begin < self.steps}):
            what = f"training.schedule: its phases begin at the steps {begins}"
            yield f"{what}, which must increase and be below training.steps={self.steps}"


@section
class ParallelConfig(Section):
    """`parallel`: the devices and processes of a run. They change its speed and memory, not
    what is learned; a run may be resumed on others."""

    # Devices that divide the samples of a batch.
    data: Count = 1
    # The same; they also divide the weights and the optimizer state.
    fsdp: Count = 1
    # Devices that divide the heads and the hidden features.
    tensor: Count = 1
    # Devices that divide the tokens.
    sequence: Count = 1
    # Processes, one for each host or device. Default: one. Address and rank come from SLURM,
    # Open MPI or Kubernetes if not given.
    processes: Count | None = None
    # HOST:PORT of process 0, for all processes; or set JAX_COORDINATOR_ADDRESS.
    coordinator: str | None = None
    # Number of this process, from 0; or set JAX_PROCESS_ID.
    rank: CountOrZero | None = None
    # Seconds after which a missing or silent process ends the run.
    timeout: Count = 100
    axes: ClassVar[tuple[str, ...]] = ("data", "fsdp", "tensor", "sequence")

    @property
    def sizes(self) -> dict[str, int]:
        """Devices along each axis of the layout."""
        return {axis: getattr(self, axis) for axis in self.axes}

    @property
    def devices(self) -> int:
        """Devices of the layout."""
        return math.prod(self.sizes.values())

    def problems(self) -> Iterator[str]:
        several = self.coordinator is not None or self.rank is not None
        if self.processes is None and several:
            yield "parallel.coordinator and rank need parallel.processes, their number"
        if self.processes is not None and (self.rank or 0) >= self.processes:
            yield f"parallel.rank={self.rank}: give a number from 0 to {self.processes - 1}"
        if not (self.coordinator or ":0").rpartition(":")[2].isdecimal():
            yield f"parallel.coordinator={self.coordinator} has no port; write 10.0.0.1:1234"


# Version of the keys and their meaning.
VERSION = 3


def _refines(tree: dict[str, Any]) -> bool:
    training = tree.get("training")
    schedule = training.get("schedule") if isinstance(training, dict) else None
    phases = schedule if isinstance(schedule, list) else ()
    return any(isinstance(x, dict) and x.get("mesh") is not None for x in phases)


@section
class Config(Section):
    """A run."""

    # Version of the keys. A run writes it; a file of yours need not.
    version: int = VERSION
    # Folder of the run, runs/NAME. Default: the name of the file.
    name: FolderName = "run"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    control: ControlConfig = ControlConfig()
    # Their defaults depend on the other sections.
    solver: SolverConfig = cast(SolverConfig, None)
    optimizer: OptimizerConfig = cast(OptimizerConfig, None)
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()

    def changed(self, section: str, **values: Any) -> "Config":
        """The configuration with other values in one section."""
        changed = getattr(self, section).replace(**values)
        return self.replace(**{section: changed})

    def on_layers(self, layers: int) -> "Config":
        """The configuration with this number of layers and the same depth T, also in stages."""

        def held(section: Any) -> Any:
            if section.control is None:
                return section
            horizon = section.control.horizon or float(self.model.layers)
            control = section.control.replace(horizon=horizon)
            return section.replace(control=control)

        stages = tuple(map(held, self.model.stages))
        return held(self.changed("model", layers=layers, stages=stages))

    def stage(self, number: int) -> "Config":
        """The configuration of a run whose one equation is this stage."""
        given = {
            name: x for name, x in _values(self.model.stages[number]).items() if x is not None
        }
        sections = {name: given.pop(name) for name in ("control", "solver") if name in given}
        windows = {name: given.pop(name) for name in ("window", "stride")}
        last = number == len(self.model.stages) - 1
        given |= {
            "stages": (),
            "class_token": self.model.class_token and last,
            "options": {**self.model.options, **windows},
        }
        return self.changed("model", **given).replace(**sections)

    @classmethod
    def complete(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        version = tree.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            raise InputError(
                f"version={shown(version)}: this release reads version {VERSION}; train again, "
                "or use the release that wrote it."
            )
        model = tree.get("model")
        solver = tree.get("solver")
        takes_weights = isinstance(model, dict) and model.get("pretrained")
        if takes_weights and isinstance(solver, dict) and "kind" not in solver:
            raise InputError(f"solver.kind is missing; set a scheme or {NATIVE}.")
        optimizer = tree.get("optimizer", {})
        if _refines(tree) and isinstance(optimizer, dict):
            # The rate must still be high when the finest mesh begins.
            tree = {**tree, "optimizer": {"schedule": "warmup_stable_decay", **optimizer}}
        return tree

    def __post_init__(self) -> None:
        if self.solver is None:
            # A checkpoint is solved by its own scheme unless another one is set.
            kind = SolverConfig.kind if self.model.pretrained is None else NATIVE
            object.__setattr__(self, "solver", SolverConfig(kind=kind))
        if self.optimizer is None:
            schedule = "warmup_stable_decay" if self.training.refines else "cosine"
            object.__setattr__(self, "optimizer", OptimizerConfig(schedule=schedule))
        super().__post_init__()

    def problems(self) -> Iterator[str]:
        pretrained = self.model.pretrained
        begins = self.model.run or pretrained
        optimizer = self.optimizer
        training = self.training
        steps = training.steps
        given: list[str] = []
        if pretrained is not None:
            free = {"kind", "pretrained", "context", "run", "checkpoint", "lora"}
            given += [f"model.{name}" for name in self.model.changes() if name not in free]
            given += ["control"] * (self.control != ControlConfig())
        for name in ("tokenizer", "vocabulary"):
            given += [f"data.{name}"] * (getattr(self.data, name) is not None)
        if begins is not None and given:
            write = f"drop {', '.join(given)}, or override them by {'=null '.join(given)}=null"
            yield f"model.pretrained={begins} gives the weights and the tokenizer; {write}"
        if self.model.lora is not None and begins is None:
            yield "model.lora changes trained weights; give model.pretrained, or drop it"
        if pretrained is None and self.solver.kind == NATIVE:
            yield f"solver.kind={NATIVE} is the scheme of a checkpoint; give model.pretrained"
        if training.refines and any(stage.layers is not None for stage in self.model.stages):
            yield "training.schedule changes all stages alike; drop model.stages.….layers"
        if training.refines and begins is not None:
            yield "training.schedule: model.pretrained begins with its own layers; drop one"
        layers = [phase.layers or self.model.layers for phase in training.phases]
        if layers != [*sorted(layers)[:-1], self.model.layers]:
            what = f"training.schedule: the layers {layers} of its phases must not decrease"
            yield f"{what}, and end with model.layers={self.model.layers}"
        if "steps" in (training.phases[-1].mesh or {}):
            yield "training.schedule: write the steps of the last mesh in solver.steps"
        needed = optimizer.warmup + max(optimizer.decaying_steps(steps), 1)
        if needed > steps:
            what = f"optimizer.warmup={optimizer.warmup} and the steps that follow it"
            yield f"{what} need {needed} steps, more than training.steps={steps}; lower one"
