import dataclasses
from typing import Any, ClassVar

from ..arguments import PositiveFloat, PositiveInt
from .flow_map import FlowMapTask
from .flows import AbstractFlow


@dataclasses.dataclass(frozen=True)
class BurgersFlow(AbstractFlow):
    """`u_t + (u²/2)_x = ν u_xx` on the circle [0, 1), ν the `viscosity`. Waves become steep
    until viscosity holds them, and fronts of width `4ν / (jump of u)` meet and merge.
    """

    step: ClassVar[float] = 2e-3
    waves: ClassVar[int] = 4
    advice: ClassVar[str] = "Raise the viscosity."
    viscosity: float

    def stepper(self, points: int, step: float) -> Any:
        from exponax.stepper import Burgers

        return Burgers(1, 1.0, points, step, diffusivity=self.viscosity, order=4)


class Burgers(FlowMapTask):
    """The flow map `u(·, 0) ↦ u(·, time)` of the viscous Burgers equation,

        u_t + (u²/2)_x = ν u_xx,   x in [0, 1), periodic,

    from random functions of four waves, zero mean and variance 1; see `FlowMapTask`.

    **Arguments:**

    - `context`: the points of the grid.
    - `viscosity`: ν.
    - `time`: at 0.3 a function has about half of its size, and one to four fronts.
    - `samples`, `held_out_samples`: see `FlowMapTask`.

    **Raises:** `InputError` where exponax is not installed, or the viscosity is so small that
    512 points do not resolve the fronts.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        viscosity: PositiveFloat = 1e-2,
        time: PositiveFloat = 0.3,
        samples: PositiveInt = 4096,
        held_out_samples: PositiveInt = 512,
    ) -> FlowMapTask:
        return cls(BurgersFlow(time, viscosity), context, samples, held_out_samples)
