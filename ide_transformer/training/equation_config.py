"""The sections `control` and `solver` of a configuration, and the stages of a model."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, model_validator

from .choice import Choice, Count, Part, SchemeConfig, Section


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

    @model_validator(mode="after")
    def _native_alone(self):
        given = self.model_dump(exclude_defaults=True, exclude={"kind"})
        if self.kind == NATIVE and given:
            keys = ", ".join(f"solver.{name}" for name in given)
            raise ValueError(f"solver.kind={NATIVE} brings its own steps; drop {keys}")
        return self

    @model_validator(mode="after")
    def _both_tolerances(self):
        if (self.rtol is None) != (self.atol is None):
            raise ValueError("solver.rtol and solver.atol go together; give both or neither")
        if self.rtol is None and self.steps_for == "sample":
            raise ValueError(
                "solver.steps_for=sample is for adaptive steps; give solver.rtol and "
                "solver.atol, or drop it"
            )
        if self.rtol is not None and self.steps_per_interval != 1:
            raise ValueError(
                "solver.steps_per_interval is for equal steps, solver.rtol for adaptive ones; "
                "drop one of them"
            )
        return self


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
