import dataclasses
import math
from collections.abc import Mapping

import diffrax
import equinox as eqx
import jax.numpy as jnp

from ..arguments import PositiveFloat, PositiveInt
from ..equation import spelled
from ..errors import InputError


class Mesh(eqx.Module):
    """A resolution of an equation: of depth, of tokens and of features. A field that is not
    given leaves what it is for as it is. `model.on(mesh)` is the model there, `task.on(mesh)`
    its samples.

        model.on(ide.Mesh(intervals=8))                  # θ(t) on eight intervals of [0, T]
        model.on(ide.Mesh(steps_per_interval=2, solver=ide.Strang()))
        ide.functional(model).on(ide.Mesh(width=256))    # the same functions at 256 points

    **Arguments:**

    - `intervals`: those of `[0, T]`, on which the control is resampled.
    - `horizon`: T, in layers, with intervals of the same length; for weights that are the same
      at all depths.
    - `steps_per_interval`: equal steps in each interval.
    - `solver`: the scheme.
    - `tokens`: those of a sample: points of a function (along each axis), windows of a text,
      patches of an image; of an `ImageEncoder` (rows, columns) of patches.
    - `width`: features, where they are points of functions, see `Model`.
    """

    intervals: PositiveInt | None = eqx.field(static=True, default=None)
    horizon: PositiveFloat | None = eqx.field(static=True, default=None)
    steps_per_interval: PositiveInt | None = eqx.field(static=True, default=None)
    solver: diffrax.AbstractSolver | None = None
    tokens: PositiveInt | tuple[PositiveInt, PositiveInt] | None = eqx.field(
        static=True, default=None
    )
    width: PositiveInt | None = eqx.field(static=True, default=None)

    @property
    def described(self) -> dict[str, int | float | str]:
        """Fields that are given, for a table."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: x if isinstance(x, int | float) else spelled(x)
            for name, x in given.items()
            if x is not None
        }


def check_steps(numbers: Mapping[str, int]) -> None:
    """Refuses more steps, the product of these numbers, than the number format of depth can
    tell apart."""
    precision = jnp.finfo(jnp.result_type(float))
    most = int(1 / max(precision.eps, 1e-8))
    if math.prod(numbers.values()) > most:
        product = " times ".join(f"{name}={number}" for name, number in numbers.items())
        raise InputError(
            f"{product}: {precision.dtype} can represent at most {most:,} different steps; "
            "give fewer."
        )
