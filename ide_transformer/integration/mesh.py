"""Meshes: the resolution of a solve."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import diffrax
import equinox as eqx
import jax.numpy as jnp

from ..arguments import PositiveFloat, PositiveInt, checked
from ..equation import spell
from ..errors import InputError


@checked
class Mesh(eqx.Module):
    """The resolution of a solve. `model.on(mesh)` is the model on another mesh, with its
    weights and its scheme; `task.on(mesh)` has samples for it. Fields that are `None` change
    nothing.

        model.on(ide.Mesh(layers=8))                   # θ(t) on eight layers of [0, T]
        model.on(ide.Mesh(steps=2))                    # two steps in each layer
        ide.functional(model).on(ide.Mesh(width=256))  # the same functions at 256 points

    **Arguments:**

    - `layers`: the number of intervals of `[0, T]`; the control is resampled on them.
    - `steps`: equal steps in each layer. Default of a model: 1.
    - `horizon`: T, in layers of the same length; for weights equal at all depths.
    - `tokens`: tokens of a sample: points of a function (along each axis), windows of a text,
      or patches of an image, also (rows, columns).
    - `width`: the number of features, for a model with a `space`.
    - `rtol`, `atol`: relative and absolute tolerance of adaptive steps, instead of equal ones.
    - `stepsize_controller`: another rule for adaptive steps, for example
      `diffrax.PIDController(rtol=1e-3, atol=1e-6, pcoeff=0.4, icoeff=0.3)`.
    - `max_steps`: the most adaptive steps in one layer. Default: 256.
    - `steps_for`: whether all samples of a `"batch"` share adaptive steps (the default), or
      each `"sample"` has its own.
    """

    layers: PositiveInt | None = eqx.field(static=True, default=None)
    steps: PositiveInt | None = eqx.field(static=True, default=None)
    horizon: PositiveFloat | None = eqx.field(static=True, default=None)
    tokens: PositiveInt | tuple[PositiveInt, PositiveInt] | None = eqx.field(
        static=True, default=None
    )
    width: PositiveInt | None = eqx.field(static=True, default=None)
    rtol: PositiveFloat | None = eqx.field(static=True, default=None)
    atol: PositiveFloat | None = eqx.field(static=True, default=None)
    stepsize_controller: diffrax.AbstractStepSizeController | None = None
    max_steps: PositiveInt | None = eqx.field(static=True, default=None)
    steps_for: Literal["batch", "sample"] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        if (self.rtol is None) != (self.atol is None):
            raise InputError("Mesh: set both of rtol and atol, or neither.")
        rules = [x for x in ("steps", "rtol", "stepsize_controller") if x in self.options]
        if len(rules) > 1:
            raise InputError(f"Mesh: {' and '.join(rules)} are set; drop all but one.")

    @property
    def controller(self) -> diffrax.AbstractStepSizeController | None:
        """The rule for adaptive steps; `None` for equal ones."""
        if self.rtol is None or self.atol is None:
            return self.stepsize_controller
        return diffrax.PIDController(rtol=self.rtol, atol=self.atol)

    @property
    def options(self) -> dict[str, object]:
        """The fields that are not `None`, by name."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: x for name, x in fields.items() if x is not None}

    @property
    def described(self) -> dict[str, int | float | str]:
        """`options` as values for a table."""
        return {
            name: x if isinstance(x, int | float) else spell(x)
            for name, x in self.options.items()
        }

    def over(self, other: "Mesh") -> "Mesh":
        """The steps of this mesh; options of steps that are `None` come from another mesh."""
        has_steps = self.steps is not None or self.controller is not None
        paced = self if has_steps else other
        return Mesh(
            steps=paced.steps,
            rtol=paced.rtol,
            atol=paced.atol,
            stepsize_controller=paced.stepsize_controller,
            max_steps=self.max_steps or other.max_steps,
            steps_for=self.steps_for or other.steps_for,
        )

    @property
    def with_defaults(self) -> "Mesh":
        """The steps of this mesh; options that are `None` have their defaults."""
        return self.over(Mesh(steps=1, max_steps=256, steps_for="batch"))


def check_steps(numbers: Mapping[str, int]) -> None:
    """Raises `InputError` if the product of these numbers of steps is more than the dtype of
    depth can tell apart."""
    precision = jnp.finfo(jnp.result_type(float))
    most = int(1 / max(precision.eps, 1e-8))
    if math.prod(numbers.values()) > most:
        product = " times ".join(f"{name}={x}" for name, x in numbers.items())
        raise InputError(
            f"{product}: {precision.dtype} has at most {most:,} different steps; use fewer."
        )
