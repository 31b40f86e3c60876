import diffrax
import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...arguments import PositiveFloat, PositiveInt, checked
from ...equation import Equation
from ...errors import InputError
from ..march import Steps, check_state, plan_steps
from ..output import Start
from ..trajectory import Trajectory
from .coupled_march import forward, largest_entry, march_coupled, relative_error
from .coupled_steps import coupled
from .modes import AbstractGradient


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
    largest entry of the state there or one interval later, the gradient is NaN, and an error
    where `solve` may raise. `rebuilding_error` measures the same at each depth.

    **Arguments:**

    - `tolerance`: the largest relative difference that is accepted.
    """

    tolerance: PositiveFloat = eqx.field(static=True, default=1e-3)

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
        differentiable = plan.makers, start.u0, plan.weights
        outcome = march_coupled(differentiable, plan.inputs, self.tolerance, start.output)
        return steps.trajectory(*outcome)


@checked
@eqx.filter_jit
def rebuilding_error(
    equation: Equation,
    u0: Float[ArrayLike, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: PositiveInt = 1,
    args: PyTree = None,
) -> Float[Array, " intervals"]:
    """The growth of rounding when a reversible scheme is undone: it marches to T and back,
    and compares at the beginning of each interval the rebuilt state with the true one. It
    gives the largest difference, relative to the largest entry of the state there or one
    interval later. `Reversible` checks the first of them.

    **Arguments:** see `solve`.

    **Raises:** `InputError` for a scheme that cannot be undone.
    """
    u0 = jnp.asarray(u0)
    check_state(equation, u0, args)
    steps = plan_steps(equation, solver, steps_per_interval, u0)
    makers, inputs, weights = coupled(steps, u0, args)
    outcome, pair, lost = forward((makers, u0, weights), inputs, states=True)
    assert outcome.states is not None
    exact = jnp.concatenate([u0[None], outcome.states[:-1]])

    def interval(pair, x):
        weights, here, lost, exact = x
        after = largest_entry(pair[0])

        def step(pair, x):
            here, lost = x
            for maker, lost_here in zip(reversed(makers), reversed(lost), strict=True):
                pair = maker(here._replace(weights=weights)).backward(pair, lost_here)
            return pair, None

        pair, _ = lax.scan(step, pair, (here, lost), reverse=True)
        return pair, relative_error(pair[0], exact, after)

    return lax.scan(interval, pair, (weights, inputs, lost, exact), reverse=True)[1]
