"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from ..equation import PointRule
from ..errors import InputError
from .choice import (
    AbstractChoice,
    Choice,
    Count,
    CountOrZero,
    FolderName,
    Fraction,
    Moment,
    Part,
    SchemeConfig,
    Section,
    Seed,
)
from .names import shown
from .optimizer import OptimizerConfig as OptimizerConfig
from .parallel import ParallelConfig as ParallelConfig


# Of the keys and their meaning.
VERSION = 1
# `solver.kind` for the scheme that comes with a checkpoint.
NATIVE = "native"


class ControlConfig(Choice):
    """`control`: how the weights depend on depth."""

    # The control.
    kind: str = "piecewise_constant"
    # Depth T at which the solution is read. Default: model.depth.
    horizon: PositiveFloat | None = None


class SolverConfig(SchemeConfig):
    """`solver`: the time-stepping scheme and its steps."""

    # Equal steps in each interval; 1 is a step per layer.
    steps_per_interval: Count = 1
    # Relative tolerance of adaptive steps. Default: equal steps.
    rtol: PositiveFloat | None = None
    # Absolute tolerance. Give both tolerances or neither.
    atol: PositiveFloat | None = None
    # Most adaptive steps in one interval.
    max_steps: Count = 256
    # Choose adaptive steps for a whole batch, or for each sample.
    steps_for: Literal["batch", "sample"] = "batch"

    def problems(self) -> Mapping[str, Any]:
        given = self.model_dump(exclude_defaults=True, exclude={"kind"})
        keys, adaptive = ", ".join(f"solver.{name}" for name in given), self.rtol is not None
        return {
            f"solver.kind={NATIVE} brings its own steps; drop {keys}": self.kind == NATIVE
            and given,
            "solver.rtol and solver.atol go together; give both or neither": adaptive
            != (self.atol is not None),
            "solver.steps_for=sample is for adaptive steps; give solver.rtol and solver.atol, "
            "or drop it": self.steps_for == "sample" and not adaptive,
            "solver.steps_per_interval is for equal steps, solver.rtol for adaptive ones; drop "
            "one of them": adaptive and self.steps_per_interval != 1,
        }


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
    # Default: model.depth.
    depth: Count | None = None
    # Default: model.hidden.
    hidden: Count | None = None
    # Default: model.operators.
    operators: Annotated[tuple[Part, ...], Field(min_length=1, strict=False)] | None = None
    # Default: the section control.
    control: ControlConfig | None = None
    # Default: the section solver.
    solver: SolverConfig | None = None


class GradientConfig(Choice):
    """A gradient mode."""

    # A gradient mode.
    kind: str = "recompute"


class MeshSection(Section):
    """A mesh of depth, tokens and features, see `Mesh`. A number alone gives its intervals."""

    # Depth T, with steps of the same size; for control tied only. Default: the run's.
    horizon: PositiveFloat | None = None
    # Intervals, on which the control is resampled. Default: model.depth.
    intervals: Count | None = None
    # Features, if they are points of functions. Default: model.width.
    width: Count | None = None
    # Tokens of a sample: points of functions or of a text. Default: model.context.
    tokens: Count | None = None
    # Equal steps in each interval. Default: the run's.
    steps_per_interval: Count | None = None
    # The scheme. Default: the run's.
    solver: SchemeConfig | None = None

    @property
    def short(self) -> int | dict[str, Any]:
        """The fields that are given; a number of intervals alone stands for itself."""
        given = self.model_dump(mode="json", exclude_defaults=True)
        return given["intervals"] if [*given] == ["intervals"] else given

    @model_validator(mode="before")
    @classmethod
    def _intervals_alone(cls, value: Any) -> Any:
        return {"intervals": value} if isinstance(value, int) else value


def refinements(refine: Mapping[Moment, MeshSection]) -> str:
    """`training.refine` as it is written."""
    return shown({moment: mesh.short for moment, mesh in refine.items()})


class DrawnMesh(MeshSection):
    """One of `training.meshes`, drawn for some steps of training."""

    # How often it is drawn, in proportion to the others.
    weight: PositiveFloat = 1.0
    # Steps of training before it is drawn.
    after: CountOrZero = 0


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

    def named(self, name: str) -> Part:
        """The choice of its class, for the key of this name."""
        return Part(kind=self.kind or name, options={**self.options, "weight": self.weight})

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
    gradient: GradientConfig = GradientConfig()
    # Dtype of matrix products. Weights and state stay float32. Evaluation uses it too; a model
    # you load yourself does not.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    # Meshes, one drawn for each step, so that one set of weights serves all. Default: the
    # model's.
    meshes: Annotated[tuple[DrawnMesh, ...], Field(strict=False)] = ()
    # Coarse meshes first: {0: 1, 0.5: 8} trains on 1 interval and, after half of the steps, on
    # 8, which must be model.depth. A key is a step or a fraction; a mesh takes the keys below
    # but weight and after. Before the last mesh, a run is evaluated and loaded on its present
    # one.
    refine: dict[Moment, MeshSection] = Field(default={})
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
    trackers: Annotated[tuple[Part, ...], Field(strict=False)] = ()
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

    def step_of(self, moment: Moment) -> int:
        """The number of steps taken at a moment of the run."""
        return moment if isinstance(moment, int) else round(moment * self.steps)

    @property
    def precision(self) -> str | None:
        """The `compute_dtype` of a `Discretization`."""
        return None if self.compute_dtype == "float32" else self.compute_dtype

    @property
    def begins(self) -> tuple[int, ...]:
        """The numbers of steps taken before each mesh of `refine`."""
        return tuple(map(self.step_of, self.refine)) or (0,)

    def meshes_after(self, step: int) -> dict[str, MeshSection]:
        """The meshes of which one is drawn after so many steps, by the key of each."""
        if not self.refine:
            meshes = self.meshes or (DrawnMesh(),)
            return {f"training.meshes.{number}": mesh for number, mesh in enumerate(meshes)}
        moment = [x for x in self.refine if self.step_of(x) <= step][-1]
        # The weights themselves are those of its intervals.
        mesh = self.refine[moment].model_copy(update={"intervals": None})
        return {f"training.refine.{moment}": mesh}

    @property
    def part_size(self) -> int:
        """The samples of which a gradient is computed at once."""
        return self.batch_size // self.accumulate

    def problems(self) -> Mapping[str, Any]:
        given, steps = f"training.refine={refinements(self.refine)}", [*self.begins]
        return {
            f"training.accumulate={self.accumulate} does not divide training.batch_size="
            f"{self.batch_size}; take a divisor of it": self.batch_size % self.accumulate,
            "training.meshes: none is drawn for the first step; give one without after": (
                self.meshes and min(mesh.after for mesh in self.meshes)
            ),
            f"{given}: training.meshes draws meshes of one model, and refine changes the "
            "model; drop one of them, or write meshes with after, such as "
            "{intervals: 8, after: 1000}": self.refine and self.meshes,
            f"{given}: the first step must be 0, such as {{0: 2, 1000: 4}}": steps[0],
            f"{given}: its steps {steps} must increase, as in {{0: 2, 1000: 4}}": (
                steps != sorted(set(steps))
            ),
            f"{given}: a run of training.steps={self.steps} does not come to step "
            f"{steps[-1]}; refine earlier, or train longer": steps[-1] >= self.steps,
        }


def _named(path: Any) -> Any:
    if path == "":
        raise ValueError("it names no file or folder; write . for the current one")
    return path


class DataConfig(AbstractChoice):
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
    name_field: ClassVar[str] = "name"
    name_key: ClassVar[str] = ".name"

    def option_key(self, name: str) -> str:
        return f".{name}" if name in type(self).model_fields else super().option_key(name)

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        for name in self.options.keys() & type(self).model_fields:
            raise InputError(f"{key}.options.{name}: write {key}.{name} instead.")
        given = self.model_dump(mode="json", exclude_none=True, exclude={"name", "options"})
        return {**given, **self.options}


class ModelConfig(Choice):
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
    basis: Part = Part(kind="nodal")
    # Coefficients of a state. Default: width.
    modes: Count | None = None
    # The points of functions.
    feature_rule: PointRule = "midpoint"
    # Heads of the queries.
    heads: Count = 4
    # Heads of the keys and values. Default: heads.
    key_value_heads: Count | None = None
    # Layers: intervals of the control.
    depth: Count = 4
    # Width inside the feed-forward. Default: the operator's.
    hidden: Count | None = None
    # Activation of the feed-forward.
    activation: str = "gelu"
    # Operators of a block, in the order in which it applies them.
    operators: Annotated[tuple[Part, ...], Field(min_length=1, strict=False)] = (
        Part(kind="attention"),
        Part(kind="feed_forward"),
    )
    # Initial rate of damping, relaxation and injection, per layer.
    damping: PositiveFloat = 0.1
    # Applied to the input of each operator (pre-norm).
    normalization: Part = Part(kind="layer_norm")
    # Applied to the embedded input; a constrained state has its constraint.
    input_normalization: Part = Part(kind="free")
    # Set on which the state is kept (post-norm), one per operator and interval.
    constraint: Part = Part(kind="free")
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
    positions: Part = Part(kind="no_positions")
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
        if self.basis == Part(kind="nodal") and modes == self.width:
            return None
        hidden, rest = divmod((self.hidden or 0) * modes, self.width)
        if rest:
            raise InputError(
                f"model.hidden={self.hidden} times model.modes={modes} is not a multiple of "
                f"model.width={self.width}; choose another of the three."
            )
        changes = dict(width=modes, hidden=hidden or None, basis=Part(kind="nodal"), modes=None)
        return self.model_copy(update=changes)

    def problems(self) -> Mapping[str, Any]:
        patch = type(self).model_fields["patch"].default
        return {
            f"model.patch={self.patch}: stages have windows and no patches; drop it, or write "
            "the stride and the window of the first stage": self.stages and self.patch != patch,
            "model.stages and model.basis: stages have ordinary matrices; drop one": (
                self.stages and self.of_coefficients is not None
            ),
            f"model.checkpoint={self.checkpoint} is one of a run; model.pretrained names none, "
            "drop it": self.run is None and self.checkpoint != "newest",
        }


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
        """The configuration with other values in one of its sections."""
        own = getattr(self, section).model_copy(update=values)
        return self.model_copy(update={section: own})

    def on_fewer_layers(self, depth: int) -> "Config":
        """The configuration with so many layers up to the same depth T, also of stages."""

        def held(section: Any) -> Any:
            if (control := section.control) is None:
                return section
            horizon = control.horizon or float(self.model.depth)
            control = control.model_copy(update={"horizon": horizon})
            return section.model_copy(update={"control": control})

        stages = tuple(map(held, self.model.stages))
        return held(self.changed("model", depth=depth, stages=stages))

    def stage(self, number: int) -> "Config":
        """The configuration of a stage, as that of a run with one equation."""
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
    def _version_and_defaults(cls, tree: Any, info: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        version = tree.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            raise ValueError(
                f"version={shown(version)}: this release of ide_transformer reads version "
                f"{VERSION}; train it again, or read it with the release that wrote it"
            )
        from .reading import filled  # which reads configurations of this kind

        tree = filled(tree, (info.context or {}).get("trust") or False)
        model = tree.get("model")
        if isinstance(model, dict) and model.get("pretrained"):
            # A checkpoint is solved by its own scheme unless another one is given.
            tree = {"solver": {"kind": NATIVE}, **tree}
            solver = tree["solver"]
            if isinstance(solver, dict) and "kind" not in solver:
                raise ValueError(f"solver.kind is missing; give a scheme or {NATIVE}")
        training = tree.get("training")
        if isinstance(training, dict) and training.get("refine"):
            # The rate has to be high still when the finest mesh comes.
            optimizer = tree.get("optimizer", {})
            if isinstance(optimizer, dict) and optimizer.get("kind") != "schedule_free":
                tree = {**tree, "optimizer": {"schedule": "warmup_stable_decay", **optimizer}}
        return tree

    def problems(self) -> Mapping[str, Any]:
        pretrained, depth = self.model.pretrained, self.model.depth
        optimizer, steps, refine = self.optimizer, self.training.steps, self.training.refine
        begins, chosen = self.model.run or pretrained, dict[str, Any]()
        if pretrained is not None:
            free = {"kind", "pretrained", "context", "run", "checkpoint"}
            given = self.model.model_dump(exclude_defaults=True, exclude=free)
            usual = ModelConfig().model_dump(mode="json")
            chosen = {f"model.{name}": usual[name] for name in given}
            if self.control != ControlConfig():
                chosen["control"] = ControlConfig().kind
        of_data = dict(tokenizer=self.data.tokenizer, vocabulary=self.data.vocabulary)
        chosen |= {f"data.{name}": None for name, value in of_data.items() if value is not None}
        undone = " ".join(
            shlex.quote(f"{key}={x if isinstance(x, str) else json.dumps(x)}")
            for key, x in chosen.items()
        )
        given = f"training.refine={refinements(refine)}"
        last = [MeshSection(), *refine.values()][-1]
        intervals = [mesh.intervals or depth for mesh in refine.values()] or [depth]
        decaying = optimizer.decaying_steps(steps)
        decay = f" and the {decaying} steps of the decay (optimizer.decay)" * bool(decaying)
        return {
            f"solver.kind={NATIVE} is the scheme of a checkpoint; give model.pretrained, or "
            "another scheme such as lie_trotter": pretrained is None
            and self.solver.kind == NATIVE,
            f"model.pretrained={begins} gives the weights and the tokenizer; drop "
            f"{', '.join(chosen)}, or, where a file has them, override them by {undone}": (
                begins is not None and chosen
            ),
            "training.refine changes all stages alike; drop model.stages.….depth, so that each "
            "has model.depth": refine
            and any(stage.depth is not None for stage in self.model.stages),
            "training.refine: a run from model.pretrained begins with its layers; drop one of "
            "them": refine and begins is not None,
            f"{given}: its numbers of intervals {intervals} must not decrease, as in "
            "{0: 2, 1000: 4}": intervals != sorted(intervals),
            f"{given}: its last mesh has the steps and the scheme of the run; write them in "
            "the section solver": (last.steps_per_interval, last.solver) != (None, None),
            f"{given} ends with {intervals[-1]} intervals, but model.depth is {depth}; write "
            f"model.depth={intervals[-1]}, or end with {depth}": intervals[-1] != depth,
            f"optimizer.restarts={optimizer.restarts}: a run of training.steps={steps} does "
            "not come to the last of them; train longer": max(optimizer.restarts, default=0)
            >= steps,
            f"optimizer.warmup={optimizer.warmup}{decay} needs more than training.steps="
            f"{steps}; lower one of them": optimizer.warmup >= steps
            or optimizer.warmup + decaying > steps,
        }


def needed_by_refinement(config: Config) -> list[str]:
    """The overrides that a coarse mesh in depth first needs, where the configuration begins on
    one and has others. The rate has to be high when the fine mesh comes, and the weights need
    solutions on both meshes that are close to each other: the embedded input is projected, and
    paths are short."""
    training, optimizer, model = config.training, config.optimizer, config.model
    first, *_ = [*training.refine.values(), MeshSection()]
    if (first.intervals or model.depth) == model.depth:
        return []
    costs = {cost.kind or name for name, cost in training.costs.items() if cost.weight}
    needed = {
        # It is the default with a refinement.
        "optimizer.schedule=warmup_stable_decay": optimizer.schedule == "cosine",
        # A constraint projects the embedded input too.
        "model.input_normalization=sphere": model.input_normalization.kind
        == model.constraint.kind
        == "free",
        "training.costs.transport=0.01": "transport" not in costs,
    }
    return [override for override, lacks in needed.items() if lacks]
