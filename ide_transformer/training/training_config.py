"""The section `training` of a configuration."""

import itertools
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from .choice import Choice, Part, SchemeConfig, Section
from .types import Count, CountAsKey, CountOrZero, Fraction, Seed


class GradientConfig(Choice):
    """A gradient mode."""

    # A gradient mode.
    kind: str = "recompute"


class MeshSection(Section):
    """A mesh of depth, tokens and features, see `Mesh`; an integer alone is its number of
    intervals."""

    # The depth T at which the solution is read, with steps of the same size; for weights that
    # are the same at all depths (tied). Default: that of the run.
    horizon: PositiveFloat | None = None
    # Intervals, on which the control is resampled; default: one for each layer of depth.
    intervals: Count | None = None
    # Features, where they are points of functions; default: model.width.
    width: Count | None = None
    # Tokens of a sample: functions at so many points, windows of that length; default:
    # model.context.
    tokens: Count | None = None
    # Equal steps in each; default: those of the run.
    steps_per_interval: Count | None = None
    # The scheme; default: that of the run.
    solver: SchemeConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _intervals_alone(cls, value: Any) -> Any:
        return {"intervals": value} if isinstance(value, int) else value


class DrawnMesh(MeshSection):
    """A mesh on which a step of training may solve the equation."""

    # How often it is drawn, in proportion to the others.
    weight: PositiveFloat = 1.0
    # Steps of training before it is drawn at all.
    after: CountOrZero = 0


class FinerConfig(Section):
    """A second solve of each batch on a finer mesh in depth, and the weights of what it changes
    in the objective; it costs `refinement` times the evaluations of the first."""

    # Steps of the finer solve in each step of the other one.
    refinement: Annotated[int, Field(ge=2, le=64)] = 2
    # Weight of the change of the outputs: for classes the divergence of their probabilities in
    # nats, else the relative square.
    consistency: NonNegativeFloat = 0.0
    # Weight of the relative square of the change of the state at T, an estimate of its error.
    defect: NonNegativeFloat = 0.0


class TrainingConfig(Section):
    """`training`: how long, and what is written when. All periods are in steps."""

    # Steps of the optimizer.
    steps: Count = 2000
    # Samples in a batch.
    batch_size: Count = 12
    # Equal parts of a batch that are computed one after the other, so that a batch may be
    # larger than memory; their mean gradient makes one step.
    accumulate: Count = 1
    # Decay of a moving average of the weights, evaluated beside them and taken by
    # `evaluate.py --weights average`; 0 for none, 0.999 averages about 1,000 steps.
    average: Fraction = 0.0
    # Of the weights, the batches and the dropout.
    seed: Seed = 0
    # What is kept for the gradient: recompute, direct, recursive or reversible.
    gradient: GradientConfig = GradientConfig()
    # In which the operators compute their products; weights and state stay in float32.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    # Meshes, one of which is drawn for each step; default: that of the model. Then one
    # set of weights serves all of them, and `evaluate.py --steps` shows what each gives.
    meshes: Annotated[tuple[DrawnMesh, ...], Field(strict=False)] = ()
    # Progressive depth: {0: 2, 1000: 4, 1500: 8} trains on 2 intervals, from step 1,000 on 4,
    # and from step 1,500 on 8, which has to be model.depth. Weights and the state of the
    # optimizer are resampled; default: model.depth from the start.
    refine: dict[CountAsKey, Count] = Field(default={})
    # Weight of the transport cost ∫ |u_t|² dt in the loss; of a model of several equations that
    # of the last.
    transport: NonNegativeFloat = 0.0
    # Weight, in the loss, of the mean loss of what is read out after each layer but the last,
    # so that a solve may end early.
    exit_loss: NonNegativeFloat = 0.0
    # Terms that compare each solve with a finer one, so that the limit of small steps is
    # trained too; default: none.
    finer: FinerConfig = FinerConfig()
    # Period of the lines in metrics.jsonl.
    log_every: Count = 10
    # Where the lines of metrics.jsonl go too: tensorboard, trackio.
    trackers: Annotated[tuple[Part, ...], Field(strict=False)] = ()
    # Period of the evaluations on validation samples.
    evaluate_every: Count = 250
    # Held-out samples for the evaluations on the way; the last one takes all.
    evaluate_samples: Count = 1024
    # Period of the checkpoints, from which a run can be resumed.
    checkpoint_every: Count = 500
    # How many of the newest checkpoints are kept.
    keep: Count = 2
    # Whether the one with the lowest validation loss is kept too; each new lowest loss is then
    # also written.
    keep_best: bool = True
    # Steps in a row with a loss or gradient that is not finite, each of which is skipped,
    # before the run goes back to its last checkpoint; the second time it ends.
    max_bad_steps: Count = 10
    # Characters or tokens of text sampled at the end of a language run.
    sample: CountOrZero = 400

    @model_validator(mode="after")
    def _in_parts(self):
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"training.accumulate={self.accumulate} does not divide training.batch_size="
                f"{self.batch_size}; take a divisor of it"
            )
        return self

    @model_validator(mode="after")
    def _first_mesh(self):
        if self.meshes and min(mesh.after for mesh in self.meshes):
            raise ValueError(
                "training.meshes: none is drawn for the first step; give one without after"
            )
        return self

    @model_validator(mode="after")
    def _refined(self):
        steps, intervals = [*self.refine], [*self.refine.values()]
        if not steps:
            return self
        given = f"training.refine={self.refine}"
        if self.meshes:
            raise ValueError(
                f"{given}: training.meshes draws meshes of one model, and refine changes the "
                "model; drop one of them, or write meshes with after, such as "
                "{intervals: 8, after: 1000}"
            )
        if steps[0]:
            raise ValueError(f"{given}: the first step must be 0, such as {{0: 2, 1000: 4}}")
        for name, numbers in (("steps", steps), ("numbers of intervals", intervals)):
            if any(b <= a for a, b in itertools.pairwise(numbers)):
                raise ValueError(
                    f"{given}: its {name} {numbers} must increase, as in {{0: 2, 1000: 4}}"
                )
        if steps[-1] >= self.steps:
            raise ValueError(
                f"{given}: a run of training.steps={self.steps} does not come to step "
                f"{steps[-1]}; refine earlier, or train longer"
            )
        return self
