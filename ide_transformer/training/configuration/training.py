"""The sections of a configuration that describe the data and the training."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from ...arguments import (
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveFraction,
    above,
    below,
)
from ...dynamics import AbstractCost
from ...integration import AbstractGradient, Mesh
from ...tasks import AbstractTask
from ..steps.growth import AbstractGrowth
from ..trackers import AbstractTracker
from .key import Key
from .reader import Spec
from .section import AbstractChoice, Count, CountOrZero, Moment, Section, Seed, part, section


@section
class DataConfig(AbstractChoice[AbstractTask]):
    """`data`: what is learned.

    **Keys:**

    - `name`: The task, for example shakespeare, text, arrays or maze.
    - `path`: File or folder of a task that reads one. Arrays: `.npz`, `.npy`, `.csv`,
      `.parquet`, `.nc`, `.h5`, `.zarr`, a folder, or The Well or PDEBench.
    - `column`: Column of a table that holds the texts.
    - `tokenizer`: `characters`, or `bpe` for a byte-pair encoding. Default for a text:
      characters.
    - `vocabulary`: Tokens of the byte-pair encoding, with 256 bytes; or of integer arrays.
      Default for a text: 512.
    - `validation`: Fraction held out for validation, of a text its end. Default for a text:
      0.1.
    - `test`: Fraction held out for the test: before validation in a text, or some arrays. Other
      tasks have a test part. Default for a text: 0.
    - `options`: Other arguments of the task.
    """

    root: ClassVar[type] = AbstractTask
    name_key: ClassVar[str] = "name"
    short_form: ClassVar[str] = "name"
    beside: ClassVar[tuple[str, ...]] = (
        *("path", "column", "tokenizer", "vocabulary", "validation", "test"),
    )
    name: str = "shakespeare"
    path: Path | None = None
    column: str | None = None
    tokenizer: str | None = None
    vocabulary: Count | None = None
    validation: Annotated[float, above(0), below(1)] | None = None
    test: Fraction | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@section
class OptimizerConfig(Section):
    """`optimizer`: the update rule and the learning rate.

    **Keys:**

    - `kind`: lion: sign of a mean of gradients; its best rate is 3 to 10 times lower than
      adamw's, its decay as much higher. muon: orthogonal updates of the operators' matrices,
      adamw for the rest, at one rate.
    - `learning_rate`: Largest rate, after the warm-up.
    - `schedule`: After the warm-up: cosine falls from the first step, constant stays,
      warmup_stable_decay falls linearly at the end. Default: cosine; with layers in
      training.schedule warmup_stable_decay, since the rate must still be high when the last
      layers begin.
    - `final_learning_rate`: Rate after the last step. Default: a tenth of the largest; for
      warmup_stable_decay 0.
    - `warmup`: Steps in which the rate grows from 0.
    - `decay`: Fraction of the steps in which warmup_stable_decay falls. Default: 0.3.
    - `groups`: Factors of the rate by the path of a weight or part: {"control": 0.5,
      "control.*.value": 2}. * is any text; the last match counts; 0 freezes.
    - `beta1`: Decay of the mean of gradients.
    - `beta2`: Decay of the mean of squared gradients; for lion, of its mean of gradients.
    - `momentum`: Decay of the mean of gradients that muon makes orthogonal. Default: 0.95.
    - `weight_decay`: Decay of matrices and embeddings; not of gains, biases and the network of
      a hypernetwork.
    - `clip`: Largest norm of a gradient.
    """

    kind: Literal["adamw", "lion", "muon"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["cosine", "constant", "warmup_stable_decay"] | None = None
    final_learning_rate: NonNegativeFloat | None = None
    warmup: CountOrZero = 100
    decay: PositiveFraction | None = None
    groups: dict[str, NonNegativeFloat] = dataclasses.field(default_factory=dict)
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    momentum: Fraction | None = None
    weight_decay: NonNegativeFloat = 0.1
    clip: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        is_muon = self.kind == "muon"
        self.require(self.momentum is None or is_muon, "momentum", "it needs kind=muon")
        decays = self.schedule in (None, "warmup_stable_decay")
        problem = "it needs schedule=warmup_stable_decay"
        self.require(self.decay is None or decays, "decay", problem)
        falls = self.final_learning_rate is None or self.schedule != "constant"
        self.require(falls, "final_learning_rate", "drop it; schedule=constant has none")
        problem = f"it must be at most learning_rate={self.learning_rate}"
        fits = self.lowest_rate <= self.learning_rate
        self.require(fits, "final_learning_rate", problem)

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


@section
class PhaseConfig(Section):
    """A phase of `training.schedule`: steps of the run on one mesh, or on several of which one
    is drawn for each step. A mesh gives any of layers, steps, horizon, tokens and width, see
    `Mesh`.

    **Keys:**

    - `until`: The step at which the phase ends, or 50% of the steps. Default: the end of the
      run.
    - `mesh`: Its mesh, for example {layers: 1}, also for the weights. Default: the mesh of the
      model.
    - `meshes`: Several meshes in place of one, for example [{layers: 4}, {layers: 8}]. One is
      drawn for each step; the weights keep model.layers.
    - `weights`: How often each of them is drawn, in proportion. Default: equally often.
    """

    until: Moment | None = None
    mesh: Mesh | None = None
    meshes: tuple[Mesh, ...] = ()
    weights: tuple[PositiveFloat, ...] = ()

    @property
    def layers(self) -> int | None:
        """The layers of its weights; `None` for the layers of the model."""
        return None if self.mesh is None else self.mesh.layers

    def __post_init__(self) -> None:
        self.require(self.mesh is None or not self.meshes, "meshes", "drop it, or mesh")
        num_meshes = len(self.meshes)
        fits = not self.weights or len(self.weights) == num_meshes
        self.require(fits, "weights", f"pass {num_meshes}, one for each mesh")


@section
class CostConfig(AbstractChoice[AbstractCost]):
    """A running cost. A number alone gives its weight.

    **Keys:**

    - `weight`: Weight in the loss. With 0 the cost is logged only.
    - `kind`: The class. Default: the name of the key.
    - `options`: Its other arguments, by name.
    """

    root: ClassVar[type] = AbstractCost
    short_form: ClassVar[str] = "weight"
    beside: ClassVar[tuple[str, ...]] = ("weight",)
    weight: NonNegativeFloat
    kind: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def complete(cls, tree: Any, key: Key) -> Any:
        tree = super().complete(tree, key)
        return tree if tree.get("kind") else {**tree, "kind": key.part}


@section
class TrainingConfig(Section):
    """`training`: how a run trains, and what it writes when. Periods are in steps.

    **Keys:**

    - `steps`: Steps of the optimizer.
    - `batch_size`: Samples in a batch.
    - `accumulate`: Equal parts of a batch, computed one after the other to save memory.
    - `average`: Decay of a moving average of the weights, for `evaluate --weights average`. 0:
      none; 0.999: about 1,000 steps.
    - `seed`: Seed of the weights, the batches and the dropout.
    - `gradient`: Gradient mode: what is kept for the gradient.
    - `compute_dtype`: Dtype of matrix products. Weights and state stay float32. Evaluation uses
      it too; a model you load yourself does not.
    - `schedule`: Phases of the run, each on meshes of its own. Coarse first: [{until: 50%,
      mesh: {layers: 1}}] trains one layer for half of the steps, then the layers of the model.
      Any depth: [{meshes: [{layers: 4}, {layers: 8}]}]. Default: one phase on the mesh of the
      model, which also follows a last phase with `until`.
    - `growth`: How a model gets more layers. refinement: the same θ(t) on more layers of the
      same depth.
    - `costs`: Running costs in the loss: {transport: 0.01}, or {contraction: {weight: 0.1,
      options: {level: 1.0}}}. Of several equations, the last.
    - `log_every`: Period of the lines in metrics.jsonl.
    - `trackers`: Where these lines go too: tensorboard, wandb.
    - `evaluate_every`: Period of validation. The last step has one too.
    - `evaluate_samples`: Held-out samples of a validation. At the end one takes all.
    - `checkpoint_every`: Period of checkpoints, from which a run can be resumed.
    - `keep`: Newest checkpoints that are kept.
    - `keep_best`: Also keep the checkpoint with the lowest validation loss.
    - `max_bad_steps`: Skipped steps in a row before a run returns to its checkpoint; the second
      time it ends.
    - `sample`: Characters or tokens of text written at the end of a language run.
    - `FREE`: What is logged and kept. None of these keys changes what is learned.
    """

    steps: Count = 2000
    batch_size: Count = 12
    accumulate: Count = 1
    average: Fraction = 0.0
    seed: Seed = 0
    gradient: Spec[AbstractGradient] = part("recompute")
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    schedule: tuple[PhaseConfig, ...] = ()
    growth: Spec[AbstractGrowth] = part("refinement")
    costs: dict[str, CostConfig] = dataclasses.field(default_factory=dict)
    log_every: Count = 10
    trackers: tuple[Spec[AbstractTracker], ...] = ()
    evaluate_every: Count = 250
    evaluate_samples: Count = 1024
    checkpoint_every: Count = 500
    keep: Count = 2
    keep_best: bool = True
    max_bad_steps: Count = 10
    sample: CountOrZero = 400

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
        is_complete = bool(self.schedule) and self.schedule[-1].until is None
        return self.schedule if is_complete else (*self.schedule, PhaseConfig())

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

    def match_schedule(self, schedule: tuple[PhaseConfig, ...]) -> "TrainingConfig":
        """These settings, with percentages replaced by the steps of `schedule`. A run that was
        made longer has a schedule in steps."""
        if len(schedule) != len(self.schedule):
            return self
        in_steps = [
            phase.replace(until=other.until)
            if isinstance(phase.until, str) and isinstance(other.until, int)
            else phase
            for phase, other in zip(self.schedule, schedule, strict=True)
        ]
        return self.replace(schedule=tuple(in_steps))

    @property
    def part_size(self) -> int:
        """Samples in one part of a batch; see `accumulate`."""
        return self.batch_size // self.accumulate

    def __post_init__(self) -> None:
        begins = [*self.begins]
        problem = f"it must divide batch_size={self.batch_size}"
        self.require(self.batch_size % self.accumulate == 0, "accumulate", problem)
        ends = [phase.until for phase in self.schedule[:-1]]
        self.require(None not in ends, "schedule", "set until in all phases but the last")
        increase = begins == sorted({begin for begin in begins if begin < self.steps})
        problem = f"the first steps {begins} must increase and be below steps={self.steps}"
        self.require(increase, "schedule", problem)


@section
class ParallelConfig(Section):
    """`parallel`: the devices and processes of a run. They change its speed and memory, not
    what is learned; a run may be resumed on others.

    **Keys:**

    - `data`: Devices that divide the samples of a batch.
    - `fsdp`: The same; they also divide the weights and the optimizer state.
    - `tensor`: Devices that divide the heads and the hidden features.
    - `sequence`: Devices that divide the tokens.
    - `processes`: Processes, one for each host or device. Default: one. Address and rank come
      from SLURM, Open MPI or Kubernetes if not given.
    - `coordinator`: HOST:PORT of process 0, for all processes; or set JAX_COORDINATOR_ADDRESS.
    - `rank`: Number of this process, from 0; or set JAX_PROCESS_ID.
    - `timeout`: Seconds after which a missing or silent process ends the run.
    """

    data: Count = 1
    fsdp: Count = 1
    tensor: Count = 1
    sequence: Count = 1
    processes: Count | None = None
    coordinator: str | None = None
    rank: CountOrZero | None = None
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

    def __post_init__(self) -> None:
        is_alone = self.processes is None
        for name in ("coordinator", "rank"):
            is_unset = getattr(self, name) is None
            self.require(is_unset or not is_alone, name, "set processes too")
        fits = self.processes is None or (self.rank or 0) < self.processes
        self.require(fits, "rank", f"it must be below processes={self.processes}")
        port = (self.coordinator or ":0").rpartition(":")[2]
        self.require(port.isdecimal(), "coordinator", "pass HOST:PORT")
