import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ..arguments import PositiveFloat, PositiveInt
from .flow_map import FlowMapTask
from .flows import AbstractFlow


@dataclasses.dataclass(frozen=True)
class NavierStokesFlow(AbstractFlow):
    """The vorticity ω of a flow in the plane,

        ω_t + v·∇ω = ν Δω,   v = (∂_2 ψ, -∂_1 ψ),   Δψ = ω,

    on the torus [0, 1)², ν the `viscosity`. Random eddies turn around and merge, and decay.
    """

    dimension: ClassVar[int] = 2
    points: ClassVar[int] = 64
    pairs: ClassVar[int] = 4
    step: ClassVar[float] = 2.5e-2
    waves: ClassVar[int] = 4
    advice: ClassVar[str] = "Raise the viscosity."
    viscosity: float

    def stepper(self, points: int, step: float) -> Any:
        from exponax.stepper import NavierStokesVorticity

        return NavierStokesVorticity(2, 1.0, points, step, diffusivity=self.viscosity, order=4)

    def drawn(self, number: int, points: int, random: np.random.Generator) -> np.ndarray:
        """Random functions of zero mean and variance 1, `[number, points, points]`,

            ω(x) = Σ_k (a_k cos 2πk·x + b_k sin 2πk·x),   0 < |k| <= waves,

        one of k and -k each, with a_k, b_k normal and independent."""
        signed = range(-self.waves, self.waves + 1)
        k = np.array([(p, q) for p in signed for q in signed if (p, q) > (0, 0)])
        k = k[np.linalg.norm(k, axis=1) <= self.waves]
        a, b = random.normal(size=(2, number, len(k))) / math.sqrt(len(k))
        x = 2 * np.pi * np.arange(points) / points
        turned = [np.exp(1j * np.outer(n, x)) for n in k.T]
        return np.einsum("nk,ki,kj->nij", a - 1j * b, *turned, optimize=True).real


class NavierStokes(FlowMapTask):
    """The flow map `ω(·, t) ↦ ω(·, t + time)` of the vorticity on a torus, from t = 0, `time`,
    2 `time` and 3 `time`, so that it can be applied to its own outputs; see `NavierStokesFlow`
    and `FlowMapTask`. The samples are solved once, which takes minutes, and kept in the cache.

    **Arguments:**

    - `context`: the points along each axis.
    - `viscosity`: ν.
    - `time`: of the flow.
    - `samples`, `held_out_samples`: the random functions, each of which gives four pairs; see
      `FlowMapTask`.

    **Raises:** `InputError` where exponax is not installed, or the viscosity is so small that
    64 points along each axis do not resolve the flow.
    """

    configurable: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        context: PositiveInt,
        viscosity: PositiveFloat = 1e-3,
        time: PositiveFloat = 1.0,
        samples: PositiveInt = 256,
        held_out_samples: PositiveInt = 32,
    ) -> FlowMapTask:
        return cls(NavierStokesFlow(time, viscosity), context, samples, held_out_samples)
