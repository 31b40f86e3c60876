"""The configuration of a run, and the checks between its sections."""

import dataclasses
from typing import Any, NamedTuple

from ...errors import ConfigError, shown
from .key import Key
from .model import NATIVE, ControlConfig, ModelConfig, SolverConfig
from .section import FolderName, Section, section
from .training import DataConfig, OptimizerConfig, ParallelConfig, TrainingConfig


# Version of the keys and their meaning.
VERSION = 3


class EquationConfig(NamedTuple):
    """The sections of one equation of a model."""

    model: ModelConfig
    control: ControlConfig
    solver: SolverConfig

    def on_layers(self, layers: int) -> "EquationConfig":
        """The equation with this number of layers and the same depth T."""
        horizon = self.control.horizon or float(self.model.layers)
        return EquationConfig(
            self.model.replace(layers=layers),
            self.control.replace(horizon=horizon),
            self.solver,
        )


@section
class Config(Section):
    """A run.

    **Keys:**

    - `version`: Version of the keys. A run writes it; a file of yours need not.
    - `name`: Folder of the run, runs/NAME. Default: the name of the file.
    - `solver`: Default: the scheme of model.pretrained, else lie_trotter.
    """

    version: int = VERSION
    name: FolderName = "run"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    control: ControlConfig = dataclasses.field(default_factory=ControlConfig)
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)

    def changed(self, section: str, **values: Any) -> "Config":
        """The configuration with other values in one section."""
        changed = getattr(self, section).replace(**values)
        return self.replace(**{section: changed})

    @property
    def equations(self) -> list[EquationConfig]:
        """The equations of the model: its stages, or one."""
        if not self.model.stages:
            return [EquationConfig(self.model, self.control, self.solver)]
        equations = []
        for stage in self.model.stages:
            sizes = {
                x: getattr(stage, x)
                for x in ("width", "heads", "layers", "hidden", "operators")
            }
            model = self.model.replace(
                stages=(),
                class_token=self.model.class_token and stage is self.model.stages[-1],
                options={**self.model.options, "window": stage.window, "stride": stage.stride},
                **{name: x for name, x in sizes.items() if x is not None},
            )
            control = stage.control or self.control
            equations.append(EquationConfig(model, control, stage.solver or self.solver))
        return equations

    @classmethod
    def complete(cls, tree: Any, key: Key) -> Any:
        if not isinstance(tree, dict):
            return tree
        version = tree.get("version", VERSION)
        if type(version) is not int or version != VERSION:
            raise ConfigError(
                f"{key / 'version'}={shown(version)}: this release reads version {VERSION}; "
                "train again, or use the release that wrote it."
            )
        model = tree.get("model")
        if isinstance(model, dict) and model.get("pretrained"):
            # A checkpoint is solved by its own scheme unless another one is set.
            solver = tree.get("solver", NATIVE)
            if isinstance(solver, dict) and "kind" not in solver:
                raise ConfigError(
                    f"{key / 'solver' / 'kind'} is missing; set a scheme or {NATIVE}."
                )
            return {**tree, "solver": solver}
        return tree

    def __post_init__(self) -> None:
        if self.optimizer.schedule is None:
            schedule = "warmup_stable_decay" if self.training.refines else "cosine"
            optimizer = self.optimizer.replace(schedule=schedule)
            optimizer.__post_init__()
            object.__setattr__(self, "optimizer", optimizer)
        self._check_weights()
        self._check_schedule()
        for equation in self.equations:
            _ = equation.model.spec

    def _check_weights(self) -> None:
        """Checks the keys that depend on the origin of the first weights."""
        model = self.model
        source = model.run or model.pretrained
        dropped: list[str] = []
        if model.pretrained is not None:
            free = {"kind", "pretrained", "context", "run", "checkpoint", "lora"}
            dropped += [f"model.{name}" for name in model.changes() if name not in free]
            dropped += ["control"] if self.control != ControlConfig() else []
        for name in ("tokenizer", "vocabulary"):
            dropped += [f"data.{name}"] if getattr(self.data, name) is not None else []
        keys = ", ".join(dropped)
        problem = f"it has the weights and the tokenizer; drop {keys}, or override them by "
        problem += f"{'=null '.join(dropped)}=null"
        model.require(source is None or not dropped, "pretrained", problem)
        has_weights = model.lora is None or source is not None
        model.require(has_weights, "lora", "it changes trained weights; set model.pretrained")
        is_own = model.pretrained is None and self.solver.kind == NATIVE
        self.solver.require(not is_own, "kind", "it needs model.pretrained")
        refines = self.training.refines and source is not None
        problem = "drop mesh; a model with model.pretrained keeps its layers"
        self.training.require(not refines, "schedule", problem)

    def _check_schedule(self) -> None:
        """Checks the phases against the layers of the model and the learning rate."""
        training = self.training
        optimizer = self.optimizer
        stage_layers = [stage.layers for stage in self.model.stages if stage.layers is not None]
        problem = "it sets all layers; drop model.stages.….layers"
        training.require(not training.refines or not stage_layers, "schedule", problem)
        most = self.model.layers
        layers = [phase.layers or most for phase in training.phases]
        problem = f"the layers {layers} must not decrease, and end with model.layers={most}"
        training.require(layers == [*sorted(layers)[:-1], most], "schedule", problem)
        last = training.phases[-1].mesh
        problem = "set the steps of the last mesh in the section solver"
        is_paced = last is not None and last.options.keys() & {"steps", "rtol"}
        training.require(not is_paced, "schedule", problem)
        num_steps = optimizer.warmup + max(optimizer.decaying_steps(training.steps), 1)
        problem = f"with the steps that follow it needs {num_steps} steps, more than "
        problem += f"training.steps={training.steps}; lower one"
        optimizer.require(num_steps <= training.steps, "warmup", problem)
