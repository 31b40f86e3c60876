"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

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

    # A control.
    kind: str = "piecewise_constant"
    # The depth T at which the solution is read; default: one for each layer of model.depth.
    horizon: PositiveFloat | None = None


class SolverConfig(SchemeConfig):
    """`solver`: the time-stepping scheme and its steps."""

    # Equal steps in each interval; 1 is a step per layer.
    steps_per_interval: Count = 1
    # Relative tolerance, for adaptive steps instead of equal ones.
    rtol: PositiveFloat | None = None
    # Absolute tolerance; goes with rtol.
    atol: PositiveFloat | None = None
    # The most adaptive steps in one interval.
    max_steps: Count = 256
    # Whether adaptive steps are the same for a batch, or each sample has its own.
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
    """`model.stages`: an equation on a grid of tokens, which windows of an image, or of the
    states of the stage before, embed."""

    # Rows and columns of pixels, or of tokens before, from one window to the next.
    stride: Count = 2
    # Side of a window; larger than the stride, windows overlap.
    window: Count = 3
    # Of this stage; default: those of the section model.
    width: Count | None = None
    heads: Count | None = None
    depth: Count | None = None
    hidden: Count | None = None
    operators: Annotated[tuple[Part, ...], Field(min_length=1, strict=False)] | None = None
    # Its weights over depth; default: the section control.
    control: ControlConfig | None = None
    # Its scheme; default: the section solver.
    solver: SolverConfig | None = None


class GradientConfig(Choice):
    """A gradient mode."""

    # A gradient mode.
    kind: str = "recompute"


class MeshSection(Section):
    """A mesh of depth, tokens and features, see `Mesh`; an integer alone is its intervals."""

    # The depth T at which the solution is read, with steps of the same size; for weights that
    # are the same at all depths (tied). Default: that of the run.
    horizon: PositiveFloat | None = None
    # Intervals, on which the control is resampled; default: one for each layer of depth.
    intervals: Count | None = None
    # Features, where they are points of functions; default: model.width.
    width: Count | None = None
    # Tokens of a sample, points of functions or of a text; default: model.context.
    tokens: Count | None = None
    # Equal steps in each; default: those of the run.
    steps_per_interval: Count | None = None
    # The scheme; default: that of the run.
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
    # nats, else the mean over samples of the relative square.
    consistency: NonNegativeFloat = 0.0
    # Weight of the same mean of the change of the state at T, an estimate of its error.
    defect: NonNegativeFloat = 0.0


class CostConfig(Section):
    """A running cost; a number alone is its weight."""

    # Weight in the objective; with 0 the cost is logged alone.
    weight: NonNegativeFloat
    # The class; default: the name of the key.
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
    """`training`: how long, and what is written when. All periods are in steps."""

    # Steps of the optimizer.
    steps: Count = 2000
    # Samples in a batch.
    batch_size: Count = 12
    # Equal parts of a batch, computed one after the other to save memory, for one step.
    accumulate: Count = 1
    # Decay of a moving average of the weights, evaluated beside them and taken by
    # `evaluate.py --weights average`; 0 for none, 0.999 averages about 1,000 steps.
    average: Fraction = 0.0
    # Of the weights, the batches and the dropout.
    seed: Seed = 0
    # What is kept for the gradient: recompute, direct, recursive or reversible; truncated is
    # the gradient of the last intervals alone.
    gradient: GradientConfig = GradientConfig()
    # In which the operators compute their products; weights and state stay in float32. A run is
    # evaluated so too; what else is made of one that is loaded computes in float32.
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    # Meshes, one of which is drawn for each step; default: that of the model. Then one
    # set of weights serves all of them, and `evaluate.py --mesh` shows what each gives.
    meshes: Annotated[tuple[DrawnMesh, ...], Field(strict=False)] = ()
    # Coarse meshes first: {0: 1, 0.5: 8} trains on 1 interval and, after half of the steps, on
    # 8, which has to be model.depth. A key is a fraction of the steps, or a step. A mesh may
    # also give tokens and width: {0: {intervals: 1, tokens: 32}, 1500: 8}. Weights and the
    # state of the optimizer are resampled; default: the model and its data from the start.
    # Until the next one a run is evaluated and loaded with the steps and scheme of a mesh.
    refine: dict[Moment, MeshSection] = Field(default={})
    # Running costs in the loss, by name: {transport: 0.01} gives the weight of one, and
    # {contraction: {weight: 0.1, options: {level: 1.0}}} its options too. Of a model of several
    # equations those of the last.
    costs: dict[str, CostConfig] = Field(default={})
    # Weight, in the loss, of the mean loss of what is read out after each layer but the last,
    # so that a solve may end early.
    exit_loss: NonNegativeFloat = 0.0
    # Terms that compare each solve with a finer one; default: none.
    finer: FinerConfig = FinerConfig()
    # Period of the lines in metrics.jsonl.
    log_every: Count = 10
    # Where the lines of metrics.jsonl go too: tensorboard, trackio.
    trackers: Annotated[tuple[Part, ...], Field(strict=False)] = ()
    # Period of the evaluations on validation samples, of which the last step has one too.
    evaluate_every: Count = 250
    # Held-out samples for these; at the end another takes all.
    evaluate_samples: Count = 1024
    # Period of the checkpoints, from which a run can be resumed.
    checkpoint_every: Count = 500
    # How many of the newest checkpoints are kept.
    keep: Count = 2
    # Whether the one with the lowest validation loss is written and kept too.
    keep_best: bool = True
    # Steps in a row with a loss or gradient that is not finite, each of which is skipped,
    # before the run goes back to its last checkpoint; the second time it ends.
    max_bad_steps: Count = 10
    # Characters or tokens of text sampled at the end of a language run.
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


class DataConfig(AbstractChoice):
    """`data`: what is learned."""

    # A task, for example shakespeare, text, dataset, digits, mnist, fashion_mnist, p_hop,
    # word_problem, parity, addition, column_addition, maze, list_ops, verses_en_es, arrays.
    name: str = "shakespeare"
    # A file or folder, for the tasks that read one.
    path: Annotated[Path | None, Field(strict=False)] = None
    # The column of a table that has the texts.
    column: str | None = None
    # `characters`, or `bpe` for a byte-pair encoding. The defaults of this and the three below
    # are those of the task: of a text characters, 512, 0.1 and 0.
    tokenizer: str | None = None
    # Tokens of the byte-pair encoding, 256 of them the bytes; or of arrays of integers.
    vocabulary: Count | None = None
    # The fraction that is held out for validation: the end of a text, or some of the training
    # images or of arrays.
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    # The fraction that is held out for the test: of a text before that for validation, or of
    # arrays. Other tasks have a test part of their own.
    test: Annotated[float, Field(ge=0, lt=1)] | None = None
    # Further arguments of the task.
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
    """`model`: the operators and how inputs and outputs meet the equation."""

    # A model.
    kind: str = "language_model"
    # A checkpoint to go on from: a folder, or a package with weights. It gives the weights,
    # the sizes and the tokenizer; of this section only `context` is then free. Or a run, by
    # its folder or its name in runs: it also gives the scheme and the data that are not said.
    pretrained: str | None = None
    # The folder of that run, written by the run that takes its weights.
    run: str | None = None
    # Its checkpoint: newest, best (of the lowest validation loss), or a step.
    checkpoint: Literal["newest", "best"] | Count = "newest"
    # Features of the state; where they are points of functions, see basis.
    width: Count = 128
    # The functions of a feature whose coefficients the weights are, for example cosine, so that
    # the width is a resolution; nodal with as many modes as features for ordinary matrices.
    basis: Part = Part(kind="nodal")
    # Coefficients of a state; default: as many as features.
    modes: Count | None = None
    # The points of functions: midpoint, periodic, gauss_legendre or clenshaw_curtis.
    feature_rule: PointRule = "midpoint"
    # Heads of the queries.
    heads: Count = 4
    # Heads of the keys and values; default: as many as heads.
    key_value_heads: Count | None = None
    # Layers: intervals of the control.
    depth: Count = 4
    # Width inside the feed-forward; default: that of the operator.
    hidden: Count | None = None
    # Activation of the feed-forward.
    activation: str = "gelu"
    # In the order in which a block applies them.
    operators: Annotated[tuple[Part, ...], Field(min_length=1, strict=False)] = (
        Part(kind="attention"),
        Part(kind="feed_forward"),
    )
    # Initial rate of damping, of relaxation and of injection, per layer.
    damping: PositiveFloat = 0.1
    # Applied to the input of each operator (pre-norm).
    normalization: Part = Part(kind="layer_norm")
    # Applied to the embedded input; where the state is constrained, the constraint is.
    input_normalization: Part = Part(kind="free")
    # The set on which the state is kept (post-norm), one for each operator and interval.
    constraint: Part = Part(kind="free")
    # Whether linear maps and normalisations have biases.
    bias: bool = False
    # Probability of dropping an entry, of the embedded input and of each rate.
    dropout: Fraction = 0.0
    # Probability of leaving out a layer in a step of training, so that the model can be solved
    # with some of its layers only.
    layer_drop: Fraction = 0.0
    # Standard deviation of the initial weights.
    std: PositiveFloat = 0.02
    # The most tokens that a language model sees; the grid points of an operator model.
    context: Count = 64
    # How attention sees positions. Where it does not, the model learns an embedding of them.
    positions: Part = Part(kind="no_positions")
    # Whether the read-out of a language model is its embedding, transposed.
    tied: bool = True
    # Side of a patch of an image classifier, in pixels.
    patch: Count = 2
    # Whether an image classifier reads a token of its own, or the mean over patches; of stages,
    # the last one has it.
    class_token: bool = False
    # Equations one after the other on coarser grids of tokens, each of this kind (image_stage)
    # and with what it does not give itself from this section; default: one equation.
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

    # Of the keys and their meaning. A run writes it; a file of your own need not.
    version: int = VERSION
    # The folder of the run, runs/NAME; default: the name of the file.
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
        begins, chosen = self.model.run or pretrained, []
        if pretrained is not None:
            free = {"kind", "pretrained", "context", "run", "checkpoint"}
            model = self.model.model_dump(exclude_defaults=True, exclude=free)
            chosen = [f"model.{name}" for name in model]
            chosen += ["control"] * (self.control != ControlConfig())
        of_data = dict(tokenizer=self.data.tokenizer, vocabulary=self.data.vocabulary)
        chosen += [f"data.{name}" for name, value in of_data.items() if value is not None]
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
            f"{', '.join(chosen)}": begins is not None and chosen,
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
