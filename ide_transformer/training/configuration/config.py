"""The configuration of a run: one typed tree, filled by YAML and by overrides `a.b=value`."""

from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from ...errors import shown
from .model import NATIVE, ControlConfig, DataConfig, ModelConfig, SolverConfig
from .optimizer import OptimizerConfig as OptimizerConfig
from .parallel import ParallelConfig as ParallelConfig
from .section import FolderName, Section
from .training import TrainingConfig


# Of the keys and their meaning.
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
        """The configuration with other values in one of its sections."""
        own = getattr(self, section).model_copy(update=values)
        return self.model_copy(update={section: own})

    def on_layers(self, layers: int) -> "Config":
        """The configuration with so many layers up to the same depth T, also of stages."""

        def held(section: Any) -> Any:
            if section.control is None:
                return section
            horizon = section.control.horizon or float(self.model.layers)
            control = section.control.model_copy(update={"horizon": horizon})
            return section.model_copy(update={"control": control})

        stages = tuple(map(held, self.model.stages))
        return held(self.changed("model", layers=layers, stages=stages))

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
    def _version_and_defaults(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
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
        training = tree.get("training", {})
        schedule = training.get("schedule") if isinstance(training, dict) else None
        if isinstance(schedule, list | tuple):
            refines = any(isinstance(x, dict) and x.get("mesh") is not None for x in schedule)
            optimizer = tree.get("optimizer", {})
            # The rate has to be high still when the finest mesh comes.
            if (
                refines
                and isinstance(optimizer, dict)
                and optimizer.get("kind") != "schedule_free"
            ):
                tree = {**tree, "optimizer": {"schedule": "warmup_stable_decay", **optimizer}}
        return tree

    def problems(self) -> Mapping[str, Any]:
        pretrained = self.model.pretrained
        begins = self.model.run or pretrained
        optimizer = self.optimizer
        steps = self.training.steps
        chosen: list[str] = []
        if pretrained is not None:
            free = {"kind", "pretrained", "context", "run", "checkpoint"}
            given = self.model.model_dump(exclude_defaults=True, exclude=free)
            chosen += [f"model.{name}" for name in given]
            chosen += ["control"] * (self.control != ControlConfig())
        for name in ("tokenizer", "vocabulary"):
            chosen += [f"data.{name}"] * (getattr(self.data, name) is not None)
        dropped = " ".join(f"{key}=null" for key in chosen)
        layers = [phase.layers or self.model.layers for phase in self.training.phases]
        last = (self.training.phases[-1].mesh or {}).keys() & {"steps", "solver"}
        decaying = optimizer.decaying_steps(steps)
        decay = f" and the {decaying} steps of the decay (optimizer.decay)" * bool(decaying)
        return {
            f"solver.kind={NATIVE} is the scheme of a checkpoint; give model.pretrained, or "
            "another scheme such as lie_trotter": pretrained is None
            and self.solver.kind == NATIVE,
            f"model.pretrained={begins} gives the weights and the tokenizer; drop "
            f"{', '.join(chosen)}, or, where a file has them, override them by {dropped}": (
                begins is not None and chosen
            ),
            "training.schedule changes the layers of all stages alike; drop "
            "model.stages.….layers, so that each has model.layers": self.training.refines
            and any(stage.layers is not None for stage in self.model.stages),
            "training.schedule: a run from model.pretrained begins with its layers; drop one "
            "of them": self.training.refines and begins is not None,
            f"training.schedule: the layers {layers} of its phases must not decrease": (
                layers != sorted(layers)
            ),
            f"training.schedule: its last mesh has the {' and the '.join(sorted(last))} of the "
            "run; write them in the section solver": last,
            f"training.schedule ends with {layers[-1]} layers, but model.layers is "
            f"{self.model.layers}; write model.layers={layers[-1]}, or end with "
            f"{self.model.layers}": layers[-1] != self.model.layers,
            f"optimizer.restarts={optimizer.restarts}: a run of training.steps={steps} does "
            "not come to the last of them; train longer": max(optimizer.restarts, default=0)
            >= steps,
            f"optimizer.warmup={optimizer.warmup}{decay} needs more than training.steps="
            f"{steps}; lower one of them": optimizer.warmup >= steps
            or optimizer.warmup + decaying > steps,
        }
