"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, PositiveFloat, model_validator

from ..equation import PointRule
from ..errors import InputError
from .choice import AbstractChoice, Choice, Part, Section
from .equation_config import (
    NATIVE as NATIVE,
    ControlConfig as ControlConfig,
    SolverConfig as SolverConfig,
    StageConfig as StageConfig,
)
from .names import shown
from .optimizer_config import OptimizerConfig as OptimizerConfig
from .parallel_config import ParallelConfig as ParallelConfig
from .training_config import TrainingConfig as TrainingConfig
from .types import Count, FolderName, Fraction, in_int32


VERSION = 1


class DataConfig(Section, AbstractChoice):
    """`data`: what is learned."""

    # A task, for example shakespeare, text, token_files, digits, mnist, fashion_mnist, p_hop,
    # word_problem, parity, addition, column_addition, list_ops, spam_bytes, verses_en_es.
    name: str = "shakespeare"
    # A file or folder, for the tasks that read one.
    path: Annotated[Path | None, Field(strict=False)] = None
    # `characters`, or `bpe` for a byte-pair encoding. The defaults of this and the three below
    # are those of the task: of a text characters, 512, 0.1 and 0.
    tokenizer: str | None = None
    # Tokens of the byte-pair encoding; 256 of them are the bytes.
    vocabulary: Annotated[int, Field(gt=256), AfterValidator(in_int32)] | None = None
    # The fraction that is held out for validation: the end of a text, or some of the training
    # images.
    validation: Annotated[float, Field(gt=0, lt=1)] | None = None
    # The fraction of a text that is held out for the test, before that for validation. Other
    # tasks have a test part of their own.
    test: Annotated[float, Field(ge=0, lt=1)] | None = None
    # Further arguments of the task.
    options: dict[str, Any] = Field(default={})
    kind_key: ClassVar[str] = ".name"

    @property
    def chosen(self) -> str:
        return self.name

    def key_of_option(self, key: str, name: str) -> str:
        own = name in type(self).model_fields
        return f"{key}.{name}" if own else super().key_of_option(key, name)

    def arguments(self, key: str, annotations: Mapping[str, Any]) -> dict[str, Any]:
        for name in type(self).model_fields:
            if name in self.options:
                raise InputError(f"{key}.options.{name}: write {key}.{name} instead.")
        given = self.model_dump(mode="json", exclude_none=True, exclude={"name", "options"})
        return {**given, **self.options}


class ModelConfig(Choice):
    """`model`: the operators and how inputs and outputs meet the equation."""

    # A model.
    kind: str = "language_model"
    # A checkpoint to go on from: a folder, or a package with weights. It gives the weights,
    # the sizes and the tokenizer; of this section only `context` is then free.
    pretrained: str | None = None
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
    def of_coefficients(self) -> "ModelConfig | None":
        """The ordinary model whose weights are coefficients; `None` for one whose weights are
        its matrices.

        **Raises:** `InputError` where `hidden` features hold no whole number of coefficients.
        """
        modes = self.width if self.modes is None else self.modes
        if self.basis == Part(kind="nodal") and modes == self.width:
            return None
        hidden, rest = divmod((self.hidden or 0) * modes, self.width)
        if rest:
            raise InputError(
                f"model.hidden={self.hidden} times model.modes={modes} is no multiple of "
                f"model.width={self.width}, so that the inside of the feed-forward has no "
                "whole number of modes; choose another of the three."
            )
        changes = dict(width=modes, hidden=hidden or None, basis=Part(kind="nodal"), modes=None)
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _stages_have_matrices(self):
        if self.stages and self.of_coefficients is not None:
            raise ValueError(
                "model.stages and model.basis: stages have ordinary matrices; drop one of them"
            )
        return self

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

    def stage(self, number: int) -> "Config":
        """The configuration of a stage, as that of a run with one equation."""
        own, model = self.model.stages[number], self.model
        given = own.model_dump(exclude_none=True, include=set(type(model).model_fields))
        changes: dict[str, Any] = {name: getattr(own, name) for name in given}
        last = number == len(model.stages) - 1
        windows = {"window": own.window, "stride": own.stride}
        changes |= {
            "stages": (),
            "class_token": model.class_token and last,
            "options": {**model.options, **windows},
        }
        sections = {
            "model": model.model_copy(update=changes),
            "control": own.control or self.control,
            "solver": own.solver or self.solver,
        }
        return self.model_copy(update=sections)

    @model_validator(mode="before")
    @classmethod
    def _version_and_scheme(cls, tree: dict[str, Any]) -> dict[str, Any]:
        version = tree.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            raise ValueError(
                f"version={shown(version)}: this release of ide_transformer reads version "
                f"{VERSION}; train it again, or read it with the release that wrote it"
            )
        model = tree.get("model")
        if isinstance(model, dict) and model.get("pretrained"):
            # A checkpoint is solved by its own scheme unless another one is given.
            tree = {"solver": {"kind": NATIVE}, **tree}
            solver = tree["solver"]
            if isinstance(solver, dict) and "kind" not in solver:
                raise ValueError(f"solver.kind is missing; give a scheme or {NATIVE}")
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
        if self.control != ControlConfig() or self.data.tokenizer is not None:
            raise ValueError(
                f"model.pretrained={pretrained} gives the weights and the tokenizer; drop "
                "control and data.tokenizer"
            )
        return self

    @model_validator(mode="after")
    def _refined_to_the_depth(self):
        refine, depth = self.training.refine, self.model.depth
        if refine and any(stage.depth is not None for stage in self.model.stages):
            raise ValueError(
                "training.refine changes all stages alike; drop model.stages.….depth, so that "
                "each has model.depth"
            )
        if refine and self.model.pretrained is not None:
            raise ValueError(
                "training.refine: a run from model.pretrained begins with its layers; drop one "
                "of them"
            )
        if refine and (last := [*refine.values()][-1]) != depth:
            raise ValueError(
                f"training.refine={refine} ends with {last} intervals, but model.depth is "
                f"{depth}; write model.depth={last}, or end with {depth}"
            )
        return self

    @model_validator(mode="after")
    def _warmup_fits(self):
        if self.optimizer.warmup >= self.training.steps:
            raise ValueError(
                f"optimizer.warmup={self.optimizer.warmup} must be less than training.steps="
                f"{self.training.steps}"
            )
        decaying = self.optimizer.decaying_steps(self.training.steps)
        if self.optimizer.warmup + decaying > self.training.steps:
            raise ValueError(
                f"optimizer.warmup={self.optimizer.warmup} and the {decaying} steps of the "
                f"decay (optimizer.decay) are more than training.steps={self.training.steps}; "
                "lower one of them"
            )
        return self
