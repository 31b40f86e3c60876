from typing import Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..equation import Equation, operator_fields
from ..errors import InputError
from ..solvers import matrix_free, unrolled
from .adaptive.adapt import AdaptiveSteps, adapt
from .check_state import check_state, check_steps
from .failure import raise_on_failure
from .gradients.diffrax_adjoint import as_gradient
from .gradients.gradient import AbstractGradient
from .gradients.recompute import Recompute
from .march import plan_steps
from .output import Output, Start, requested
from .solution import Solution, interpolate
from .trajectory import Trajectory


class Discretization(eqx.Module):
    """A way to solve an equation, which a model keeps: the options of `solve`.

    **Arguments:** see `solve`, and

    - `steps_for`: whether a model takes the same adaptive steps for all samples of a batch,
      or steps of its own for each.
    - `compute_dtype`: the type in which the operators of a model compute their products, for
      example `bfloat16`; the state and the weights keep theirs. `None` for that of the
      weights.

    **Raises:** `InputError` for options that do not fit together.
    """

    solver: diffrax.AbstractSolver
    steps_per_interval: int = eqx.field(static=True, default=1)
    stepsize_controller: diffrax.AbstractStepSizeController | None = None
    gradient: AbstractGradient = eqx.field(converter=as_gradient, default=Recompute())
    max_steps: int = eqx.field(static=True, default=256)
    steps_for: Literal["batch", "sample"] = eqx.field(static=True, default="batch")
    compute_dtype: str | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_steps(self.steps_per_interval)
        if self.stepsize_controller is None:
            return
        if self.steps_per_interval != 1:
            raise InputError(
                f"solve: steps_per_interval={self.steps_per_interval} and a "
                "stepsize_controller were both given; the controller chooses the steps, so "
                "drop steps_per_interval."
            )
        if isinstance(self.stepsize_controller, diffrax.ConstantStepSize):
            raise InputError(
                "solve: ConstantStepSize makes equal steps; say how many with "
                "steps_per_interval and drop the controller."
            )

    def solve(
        self,
        equation: Equation,
        u0: Float[Array, "*batch tokens features"],
        *,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
        args: PyTree = None,
        throw: bool = True,
    ) -> Solution:
        """The solution of an equation: see `solve`."""
        output = requested(equation, saveat, throw=throw)
        return _solve(self, equation, Start(u0, args, output))

    def _trajectory(self, equation: Equation, start: Start) -> Trajectory:
        solver = matrix_free(self.solver)
        if self.stepsize_controller is None:
            steps = plan_steps(equation, unrolled(solver), self.steps_per_interval, start.u0)
            return self.gradient.march(steps, start)
        steps = AdaptiveSteps(equation, solver, self.stepsize_controller, self.max_steps)
        return adapt(steps, start, self.gradient)


@eqx.filter_jit
def _solve(discretization: Discretization, equation: Equation, start: Start) -> Solution:
    output = start.output
    check_state(equation, start.u0, start.args)
    trajectory = discretization._trajectory(equation, start)
    status = trajectory.status
    u1 = raise_on_failure(equation, trajectory.u1, status) if output.throw else trajectory.u1
    return Solution(
        u1=u1,
        ts=jnp.asarray(output.depths, u1.dtype),
        us=_states(equation, start.u0, u1, trajectory, output),
        stats={
            "steps": trajectory.steps,
            "accepted": trajectory.steps - trajectory.rejected,
            "rejected": trajectory.rejected,
            "field_evaluations": trajectory.field_evaluations,
            "constraint_residual": _residual(equation, u1),
        },
        result=status.result,
        failed_at=status.failed_at,
        interpolation=trajectory.interpolation if output.interpolation else None,
        interval_length=equation.control.interval_length,
    )


def _states(
    equation: Equation, u0: Array, u1: Array, trajectory: Trajectory, output: Output
) -> Float[Array, "depths *batch tokens features"]:
    """The states at the depths asked for."""
    if output.depths == (equation.horizon,):
        return u1[None]
    if trajectory.states is not None and output.states:
        at_knots = jnp.concatenate([u0[None], trajectory.states])
        return at_knots[np.searchsorted(equation.knots, output.depths)]
    length = equation.control.interval_length
    return jax.vmap(lambda t: interpolate(trajectory.interpolation, length, t))(
        jnp.asarray(output.depths, u1.dtype)
    )


def _residual(equation: Equation, u1: Array) -> Float[Array, ""]:
    """The largest residual at T, on the constraint with which the last interval ends."""
    last = equation.control.num_intervals - 1
    field = operator_fields(equation.terms_of(last))[-1]
    return jnp.max(field.constraint(equation.horizon).residual(u1))
