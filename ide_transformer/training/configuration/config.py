"""The configuration of a run: a tree of typed sections, filled by YAML and `a.b=value`."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
    model_validator,
)

from ...errors import InputError, shown


# The normal numbers of float32, which takes smaller ones for 0.
_LEAST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


def in_single_precision(value: Any) -> Any:
    """The value. Raises `ValueError` for a number that float32 cannot hold."""
    if type(value) is float and value and not _LEAST <= abs(value) <= _LARGEST:
        raise ValueError(f"a float32 is 0 or between {_LEAST:.2g} and {_LARGEST:.2g}")
    return value


def _moment(value: Any) -> int | str:
    if type(value) is int and 0 < value < 2**31:
        return value
    part = re.fullmatch(r"(\d{1,3}(\.\d+)?)%", value) if isinstance(value, str) else None
    if part and 0 < float(part[1]) < 100:
        return value
    raise ValueError("Input should be a number of steps, or a part of them such as 50%")


def _description(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    options = value.get("options", {})
    named = isinstance(value.get("kind"), str) and isinstance(options, dict)
    if not named or value.keys() - {"kind", "options"}:
        raise ValueError("Input should be a name, or {kind: name, options: {argument: value}}")
    return value if options else value["kind"]


def folder_name(name: str) -> str:
    """The name. Raises `ValueError` if some system cannot have such a folder."""
    devices = r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    name_of_folder = r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9]"
    if re.fullmatch(devices, name) or not re.fullmatch(name_of_folder, name):
        raise ValueError("no name of a folder; take letters, digits and '-_.', as in small-2")
    return name


# Runs count in int32.
Count = Annotated[int, Field(gt=0, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
# A step of a run, or a part of all its steps such as "50%".
Moment = Annotated[int | str, BeforeValidator(_moment)]
# A class by its name, or with arguments of its constructor; see `read`.
Description = Annotated[str | dict[str, Any], BeforeValidator(_description)]
# JAX uses 32 bits of a seed; larger seeds would draw the same weights.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# The name of a folder of results.
FolderName = Annotated[str, AfterValidator(folder_name)]


class Section(BaseModel):
    """A section of a configuration. It rejects unknown keys and converts no value, also when
    it is made in Python. Every number must fit float32, in which runs compute."""

    # A validator is built at its first use, which makes the import faster.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, strict=True, defer_build=True
    )

    def problems(self) -> Iterator[str]:
        """A message for each mistake of several keys together."""
        return iter(())

    @model_validator(mode="after")
    def _fits(self):
        for problem in self.problems():
            raise ValueError(problem)
        return self

    @field_validator("*")
    @classmethod
    def _in_single_precision(cls, value: Any) -> Any:
        return in_single_precision(value)


# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


class ClassSection(Section):
    """A section that chooses a class. It may be written as the name alone."""

    # The name.
    kind: str
    # Arguments of the class, by name.
    options: dict[str, Any] = Field(default={})

    @property
    def description(self) -> dict[str, Any]:
        """The class and its arguments, for `read`."""
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
        own = self.model_dump(exclude_defaults=True, exclude={"kind"})
        if self.kind == NATIVE and own:
            yield f"solver.kind={NATIVE} has its own steps; drop solver.{', solver.'.join(own)}"
        if (self.rtol is None) != (self.atol is None):
            yield "solver.rtol and solver.atol: give both, or neither"
        if self.rtol is None and self.steps_for == "sample":
            yield "solver.steps_for=sample is for adaptive steps; give solver.rtol and atol"
        if self.rtol is not None and self.steps != 1:
            yield "solver.steps is for equal steps, solver.rtol for adaptive ones; drop one"


Operators = Annotated[tuple[Description, ...], Field(min_length=1, strict=False)]


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


def _named(path: Any) -> Any:
    if path == "":
        raise ValueError("it names no file or folder; write . for the current one")
    return path


class DataConfig(Section):
    """`data`: what is learned."""

    # The task, for example shakespeare, text, arrays or maze.
    name: str = "shakespeare"
    # File or folder of a task that reads one. Arrays: `.npz`, `.npy`, `.csv`, `.parquet`,
    # `.nc`, `.h5`, `.zarr`, a folder, or The Well or PDEBench
    # ([files](../how-to/own-data.md#files)).
    path: Annotated[Path | None, Field(strict=False), BeforeValidator(_named)] = None
    # Column of a table that holds the texts.
    column: str | None = None
    # `characters`, or `bpe` for a byte-pair encoding. Default for a text: characters.
    tokenizer: str | None = None
    # Tokens of the byte-pair encoding, with 256 bytes; or of integer arrays. Default for a
    # text: 512.
    vocabulary: Count | None = None
    # Fraction held out for validation, of a text its end. Default for a text: 0.1.
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    # Fraction held out for the test: before validation in a text, or some arrays. Other tasks
    # have a test part. Default for a text: 0.
    test: Annotated[float, Field(ge=0, lt=1)] | None = None
    # Other arguments of the task.
    options: dict[str, Any] = Field(default={})

    @property
    def description(self) -> dict[str, Any]:
        """The task and its arguments, for `read`."""
        given = self.model_dump(mode="json", exclude_none=True, exclude={"name", "options"})
        return {"name": self.name, "options": {**given, **self.options}}

    def problems(self) -> Iterator[str]:
        for name in sorted(self.options.keys() & type(self).model_fields):
            yield f"data.options.{name}: write data.{name} instead"


class LowRankConfig(Section):
    """Changes of low rank, `W + (alpha / rank) A B`, of frozen matrices W."""

    # Columns of A.
    rank: Count = 8
    # Size of the changes.
    alpha: PositiveFloat = 16.0
    # Maps that change: query, key, value, output; inner, outer, gate; others by their names.
    targets: Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = ("query", "value")


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
    stages: Annotated[tuple[StageConfig, ...], Field(strict=False)] = ()

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
        return self.model_copy(update=changes)

    def problems(self) -> Iterator[str]:
        if self.stages and self.patch != type(self).model_fields["patch"].default:
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
Factor = Annotated[NonNegativeFloat, AfterValidator(in_single_precision)]


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
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    # Factors of the rate by the path of a weight or part: {"control": 0.5, "control.*.value":
    # 2}. * is any text; the last match counts; 0 freezes.
    groups: dict[str, Factor] = Field(default={})
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


class PhaseConfig(Section):
    """A phase of `training.schedule`: steps of the run on one mesh, or on several of which one
    is drawn for each step. A mesh gives any of layers, steps, horizon, tokens, width and
    solver, see `Mesh`."""

    # The step at which the phase ends, or 50% of the steps. Default: the end of the run.
    until: Moment | None = None
    # Its mesh, for example {layers: 1}, also for the weights. Default: the mesh of the model.
    mesh: MeshTree | None = None
    # Several meshes in place of one, for example [{layers: 4}, {layers: 8}]. One is drawn for
    # each step; the weights keep model.layers.
    meshes: Annotated[tuple[MeshTree, ...], Field(strict=False)] = ()
    # How often each of them is drawn, in proportion. Default: equally often.
    weights: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] = ()

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


class CostConfig(Section):
    """A running cost. A number alone gives its weight."""

    # Weight in the loss. With 0 the cost is logged only.
    weight: NonNegativeFloat
    # The class. Default: the name of the key.
    kind: str | None = None
    # Its other arguments, by name.
    options: dict[str, Any] = Field(default={})

    def description(self, name: str) -> dict[str, Any]:
        """The class and arguments of the cost under the key `name`, for `read`."""
        return {"kind": self.kind or name, "options": {**self.options, "weight": self.weight}}

    @model_validator(mode="before")
    @classmethod
    def _weight_alone(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) else value


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
    schedule: Annotated[tuple[PhaseConfig, ...], Field(strict=False)] = ()
    # How a model gets more layers. refinement: the same θ(t) on more layers of the same depth.
    growth: Description = "refinement"
    # Running costs in the loss: {transport: 0.01}, or {contraction: {weight: 0.1, options:
    # {level: 1.0}}}. Of several equations, the last.
    costs: dict[str, CostConfig] = Field(default={})
    # Period of the lines in metrics.jsonl.
    log_every: Count = 10
    # Where these lines go too: tensorboard, wandb.
    trackers: Annotated[tuple[Description, ...], Field(strict=False)] = ()
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
        return tuple(phase.model_copy(update={"until": end}) for phase, end in ends)

    def scheduled_as(self, own: "TrainingConfig") -> "TrainingConfig":
        """These settings with the schedule of the run `own`, if that is the schedule given here
        with each percentage replaced by a step. A run that was made longer has such a one."""
        given = [phase.model_copy(update={"until": None}) for phase in self.schedule]
        kept = [phase.model_copy(update={"until": None}) for phase in own.schedule]
        in_parts = any(isinstance(phase.until, str) for phase in self.schedule)
        in_steps = not any(isinstance(phase.until, str) for phase in own.schedule)
        if given == kept and in_parts and in_steps:
            return self.model_copy(update={"schedule": own.schedule})
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
VERSION = 2


class Config(Section):
    """A run."""

    # Version of the keys. A run writes it; a file of yours need not.
    version: int = VERSION
    # Folder of the run, runs/NAME. Default: the name of the file.
    name: FolderName = "run"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    control: ControlConfig = ControlConfig()
    solver: SolverConfig = SolverConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    parallel: ParallelConfig = ParallelConfig()

    def changed(self, section: str, **values: Any) -> "Config":
        """The configuration with other values in one section."""
        own = getattr(self, section).model_copy(update=values)
        return self.model_copy(update={section: own})

    def on_layers(self, layers: int) -> "Config":
        """The configuration with this number of layers and the same depth T, also in stages."""

        def held(section: Any) -> Any:
            if section.control is None:
                return section
            horizon = section.control.horizon or float(self.model.layers)
            control = section.control.model_copy(update={"horizon": horizon})
            return section.model_copy(update={"control": control})

        stages = tuple(map(held, self.model.stages))
        return held(self.changed("model", layers=layers, stages=stages))

    def stage(self, number: int) -> "Config":
        """The configuration of a run whose one equation is this stage."""
        given = {name: x for name, x in self.model.stages[number] if x is not None}
        sections = {name: given.pop(name) for name in ("control", "solver") if name in given}
        windows = {name: given.pop(name) for name in ("window", "stride")}
        last = number == len(self.model.stages) - 1
        given |= {
            "stages": (),
            "class_token": self.model.class_token and last,
            "options": {**self.model.options, **windows},
        }
        return self.changed("model", **given).model_copy(update=sections)

    @model_validator(mode="before")
    @classmethod
    def _version_and_defaults(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        version = tree.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            what = f"version={shown(version)}: this release reads version {VERSION}"
            raise ValueError(f"{what}; train again, or take the release that wrote it")
        model = tree.get("model")
        if isinstance(model, dict) and model.get("pretrained"):
            # A checkpoint is solved by its own scheme unless another one is given.
            tree = {"solver": {"kind": NATIVE}, **tree}
            solver = tree["solver"]
            if isinstance(solver, dict) and "kind" not in solver:
                raise ValueError(f"solver.kind is missing; give a scheme or {NATIVE}")
        training = tree.get("training", {})
        schedule = training.get("schedule") if isinstance(training, dict) else None
        phases = schedule if isinstance(schedule, list | tuple) else ()
        optimizer = tree.get("optimizer", {})
        refines = any(isinstance(x, dict) and x.get("mesh") is not None for x in phases)
        # The rate must still be high when the finest mesh begins.
        if refines and isinstance(optimizer, dict):
            tree = {**tree, "optimizer": {"schedule": "warmup_stable_decay", **optimizer}}
        return tree

    def problems(self) -> Iterator[str]:
        pretrained = self.model.pretrained
        begins = self.model.run or pretrained
        optimizer = self.optimizer
        training = self.training
        steps = training.steps
        given: list[str] = []
        if pretrained is not None:
            free = {"kind", "pretrained", "context", "run", "checkpoint", "lora"}
            own = self.model.model_dump(exclude_defaults=True, exclude=free)
            given += [f"model.{name}" for name in own]
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
        if last := sorted((training.phases[-1].mesh or {}).keys() & {"steps", "solver"}):
            yield f"training.schedule: write {' and '.join(last)} of the last mesh in solver"
        needed = optimizer.warmup + max(optimizer.decaying_steps(steps), 1)
        if needed > steps:
            what = f"optimizer.warmup={optimizer.warmup} and the steps that follow it"
            yield f"{what} need {needed} steps, more than training.steps={steps}; lower one"
