"""The section `training`."""

from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from ...errors import shown
from .optimizer import OptimizerConfig as OptimizerConfig
from .parallel import ParallelConfig as ParallelConfig
from .section import Count, CountOrZero, Description, Fraction, Moment, Section, Seed


# Arguments of a `Mesh`, by name.
MeshTree = dict[str, Any]


class PhaseConfig(Section):
    """A phase of `training.schedule`: steps of the run on one mesh, or on several of which one
    is drawn for each step. A mesh gives any of layers, steps, horizon, tokens, width and
    solver, see `Mesh`."""

    # The step at which the phase ends, or 50% of the steps. Default: the end of the run.
    until: Moment | None = None
    # Its mesh, for example {layers: 1}. The weights are those of its layers. Default: the mesh
    # of the model.
    mesh: MeshTree | None = None
    # Several meshes in place of one, for example [{layers: 4}, {layers: 8}]. One is drawn for
    # each step; the weights stay those of model.layers.
    meshes: Annotated[tuple[MeshTree, ...], Field(strict=False)] = ()
    # How often each of them is drawn, in proportion. Default: equally often.
    weights: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] = ()

    @property
    def layers(self) -> int | None:
        """The layers of its weights, if they are not those of the model."""
        return (self.mesh or {}).get("layers")

    def problems(self) -> Mapping[str, Any]:
        return {
            "mesh and meshes: a phase has one mesh or draws one of several; drop one of the "
            "two": self.mesh is not None and self.meshes,
            f"weights={list(self.weights)}: give one for each of the {len(self.meshes)} "
            "meshes": self.weights and len(self.weights) != len(self.meshes),
            f"mesh.layers={shown(self.layers)}: Input should be a valid integer": (
                type(self.layers) not in (int, NoneType)
            ),
        }


class FinerConfig(Section):
    """A second solve of each batch with finer steps, and the weights of what it changes. It
    costs `refinement` times the evaluations of the first."""

    # Its steps in each step of the first solve.
    refinement: Annotated[int, Field(ge=2, le=64)] = 2
    # Weight of the change of the outputs: for classes the divergence in nats, else the mean
    # relative square.
    consistency: NonNegativeFloat = 0.0
    # Weight of the mean relative square of the change of the state at T.
    defect: NonNegativeFloat = 0.0


class CostConfig(Section):
    """A running cost. A number alone gives its weight."""

    # Weight in the loss. With 0 the cost is logged only.
    weight: NonNegativeFloat
    # The class. Default: the name of the key.
    kind: str | None = None
    # Its other arguments, by name.
    options: dict[str, Any] = Field(default={})

    def description(self, name: str) -> dict[str, Any]:
        """Its class and arguments, for the key of this name, see `read`."""
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
    # Running costs in the loss: {transport: 0.01}, or {contraction: {weight: 0.1, options:
    # {level: 1.0}}}. Of several equations, the last.
    costs: dict[str, CostConfig] = Field(default={})
    # Weight of the mean loss read out after each layer but the last, so that a solve may end
    # early.
    exit_loss: NonNegativeFloat = 0.0
    # Terms that compare each solve with a finer one. Default: none.
    finer: FinerConfig = FinerConfig()
    # Period of the lines in metrics.jsonl.
    log_every: Count = 10
    # Where these lines go too: tensorboard, trackio.
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
    # Skipped steps in a row (loss or gradient not finite) before the run returns to its last
    # checkpoint; the second time it ends.
    max_bad_steps: Count = 10
    # Characters or tokens of text written at the end of a language run.
    sample: CountOrZero = 400

    # What is logged and kept; nothing of it changes what is learned.
    FREE: ClassVar = (
        *("log_every", "trackers", "evaluate_every", "evaluate_samples", "checkpoint_every"),
        *("keep", "keep_best", "sample"),
    )

    @property
    def precision(self) -> Literal["bfloat16"] | None:
        """The `compute_dtype` of a `Model`."""
        return None if self.compute_dtype == "float32" else self.compute_dtype

    @property
    def refines(self) -> bool:
        """Whether the layers of the weights may change on the way."""
        return any(phase.mesh is not None for phase in self.schedule)

    @property
    def phases(self) -> tuple[PhaseConfig, ...]:
        """The phases of the run, of which the last goes to its end."""
        whole = bool(self.schedule) and self.schedule[-1].until is None
        return self.schedule if whole else (*self.schedule, PhaseConfig())

    @property
    def begins(self) -> tuple[int, ...]:
        """The steps before each phase."""
        return (0, *(self._step_of(phase.until) for phase in self.phases[:-1]))

    @property
    def schedule_in_steps(self) -> tuple[PhaseConfig, ...]:
        """The schedule with steps in place of parts of the run."""
        ends = zip(self.schedule, (*self.begins[1:], None), strict=False)
        return tuple(phase.model_copy(update={"until": end}) for phase, end in ends)

    def scheduled_as(self, own: "TrainingConfig") -> "TrainingConfig":
        """These settings, with the phases of a run that was made longer: they end at steps
        there and at parts of the run here, and are the same otherwise."""
        given = [phase.model_copy(update={"until": None}) for phase in self.schedule]
        kept = [phase.model_copy(update={"until": None}) for phase in own.schedule]
        in_parts = any(isinstance(phase.until, str) for phase in self.schedule)
        in_steps = not any(isinstance(phase.until, str) for phase in own.schedule)
        if given == kept and in_parts and in_steps:
            return self.model_copy(update={"schedule": own.schedule})
        return self

    def _step_of(self, until: Moment | None) -> int:
        if isinstance(until, str):
            return round(float(until[:-1]) / 100 * self.steps)
        return self.steps if until is None else until

    @property
    def part_size(self) -> int:
        """The samples of which a gradient is computed at once."""
        return self.batch_size // self.accumulate

    def problems(self) -> Mapping[str, Any]:
        return {
            f"training.accumulate={self.accumulate} does not divide training.batch_size="
            f"{self.batch_size}; take a divisor of it": self.batch_size % self.accumulate,
            "training.schedule: only the last phase goes to the end of the run; give the "
            "others until, such as until: 50%": any(
                phase.until is None for phase in self.schedule[:-1]
            ),
            f"training.schedule: its phases begin at the steps {[*self.begins]}, which must "
            f"increase and be below training.steps={self.steps}": (
                [*self.begins] != sorted({x for x in self.begins if x < self.steps})
            ),
        }
