import diffrax
import equinox as eqx

from ...errors import InputError
from ..march import Steps
from ..output import Start
from ..trajectory import Trajectory
from .coupled_march import march_coupled
from .coupled_steps import coupled
from .gradient import AbstractGradient


class Reversible(AbstractGradient):
    """Keep the state at T and rebuild those before it on the way back, step by step, so that
    memory does not grow with depth.

    For schemes whose steps can be undone: `AlgebraicallyReversible` around any explicit
    scheme, `Leapfrog` on a control without jumps, and these on a constraint whose projection
    loses a mean and a standard deviation of each token, which are kept.

    On `LayerNorm` and the spheres the way back divides by the gain: gains near 1 serve a
    hundred layers, one of ½ doubles rounding in every layer.

    Rounding grows on the way back. Once it has arrived, the rebuilt initial state is
    compared with the true one; if they differ by more than `tolerance`, relative to the
    largest entry, the gradient is NaN, and an error where `solve` may raise.
    `rebuilding_error` measures the same at each depth.

    **Arguments:**

    - `tolerance`: the largest relative difference that is accepted.
    """

    tolerance: float = eqx.field(static=True, default=1e-3)

    def adjoint(self) -> diffrax.AbstractAdjoint:
        raise InputError(
            "solve: Reversible() undoes the equal steps of a reversible scheme; for adaptive "
            "steps use gradient=Recompute(), Recursive() or Direct()."
        )

    def march(self, steps: Steps, start: Start) -> Trajectory:
        plan = coupled(steps, start.u0, start.args)
        if start.output.dense:
            raise InputError(
                "solve: gradient=Reversible() does not keep the steps that dense output and "
                "depths inside an interval need; ask for SaveAt(ts=equation.knots), or use "
                "gradient=Recompute()."
            )
        outcome = march_coupled(plan, start.u0, self.tolerance, start.output)
        return steps.trajectory(*outcome)
