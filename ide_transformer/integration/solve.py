"""`solve` and `Discretization`."""

from collections.abc import Callable
from typing import Literal

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..arguments import PositiveInt, checked, is_known
from ..equation import Equation, operator_fields
from ..errors import InputError
from .adaptive import adapt
from .exits import AbstractExit, march_until
from .gradients import AbstractGradient, Recompute, as_gradient
from .march import check_state, plan_steps
from .output import Output, Solution, Start, Trajectory, interpolate, requested


@checked
def solve(
    equation: Equation,
    u0: Float[ArrayLike, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: PositiveInt = 1,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    gradient: AbstractGradient | diffrax.AbstractAdjoint = Recompute(),
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    args: PyTree = None,
    max_steps: PositiveInt = 256,
    throw: bool = True,
) -> Solution:
    """Solves `u_t = F(t, u)`, `u(0) = u0`, from depth 0 to T.

    Every stage of every step reads the weights of the interval in which the step is made,
    so schemes keep their order on layered weights too. `diffrax.diffeqsolve` on
    `equation.terms` gives the same answer where the control is continuous in depth; on
    `PiecewiseConstant`, called by hand, schemes with a stage at the end of the step (Heun,
    Tsit5) read the next layer there and do not.

    **Arguments:**

    - `equation`: see `Equation`.
    - `u0`: `[..., tokens, features]`. Leading axes share one sequence of steps; under
      `jax.vmap` each sample has its own. It may be off the constraint S: it is
      the state at depth 0 as you give it, in `t0`, `ts` and `dense` too, and the first step
      takes it to S. To begin on S give `constraint.project(u0)`.
    - `solver`: any `diffrax.AbstractSolver`. The implicit ones of diffrax solve their stages
      by Newton–Krylov, without a Jacobian matrix.
    - `steps_per_interval`: equal steps in each interval; 1 is a step per layer.
    - `stepsize_controller`: choose the steps by an error estimate instead, for example
      `diffrax.PIDController(rtol=1e-3, atol=1e-6)`. No step crosses the boundary
      of an interval, and padded tokens do not enter its error norm.
    - `gradient`: decides which values are kept for the gradient: `Recompute()`,
      `Recursive()`, `Direct()`, or for reversible schemes `Reversible()`; for adaptive steps
      also an adjoint of diffrax. `Truncated()` is the gradient of the last intervals alone.
    - `saveat`: a `diffrax.SaveAt` with any of `t0`, `t1`, `ts`, `fn`, `dense` and, where steps
      are fixed, `steps`. The states of all layers are `SaveAt(ts=equation.knots)`. States
      at the ends of steps are on S, and those between up to the error of the interpolation.
    - `args`: handed to the vector field, which gives them to `AbstractOperator.at`; an
      `InitialVelocity` to schemes with momentum.
    - `max_steps`: the most steps that an adaptive solve may take in one interval.
    - `throw`: raise if the solve fails. Pass `False` inside a training step, where raising
      would make the device wait for the host, and look at `Solution.result`.

    **Raises:** `InputError` for arguments that do not fit; an error that names the failure
    and its depth if the solve fails and `throw` is true.
    """
    discretization = Discretization(
        solver, steps_per_interval, stepsize_controller, gradient, max_steps
    )
    return discretization.solve(equation, u0, saveat=saveat, args=args, throw=throw)


class Discretization(eqx.Module):
    """A way to solve an equation, which a model keeps: the options of `solve`.

    **Arguments:** see `solve`, and, for models alone,

    - `steps_for`: whether a model takes the same adaptive steps for all samples of a batch,
      or steps of its own for each.
    - `compute_dtype`: the type in which the operators of a model compute their products, for
      example `bfloat16`; the state and the weights keep theirs. `None` for that of the
      weights.
    - `exit`: the rule by which tokens of a model stop before the end, see `AbstractExit`.
    """

    solver: diffrax.AbstractSolver
    steps_per_interval: PositiveInt = eqx.field(static=True, default=1)
    stepsize_controller: diffrax.AbstractStepSizeController | None = None
    gradient: AbstractGradient = eqx.field(converter=as_gradient, default=Recompute())
    max_steps: PositiveInt = eqx.field(static=True, default=256)
    steps_for: Literal["batch", "sample"] = eqx.field(static=True, default="batch")
    compute_dtype: Literal["bfloat16", "float16", "float32", "float64"] | None = eqx.field(
        static=True, default=None
    )
    exit: AbstractExit | None = None

    def __check_init__(self):
        if self.stepsize_controller is None:
            return
        if self.exit is not None:
            raise InputError(
                f"solve: exit={type(self.exit).__name__}(…) and a stepsize_controller were "
                "both given; tokens stop between equal steps, so drop the controller."
            )
        if self.steps_per_interval != 1:
            raise InputError(
                f"solve: steps_per_interval={self.steps_per_interval} and a "
                "stepsize_controller were both given; drop steps_per_interval."
            )
        for name in ("rtol", "atol"):
            tolerance = getattr(self.stepsize_controller, name, 0)
            if is_known(tolerance) and not tolerance >= 0:
                raise InputError(f"solve: stepsize_controller: {name}={tolerance} is below 0.")

    def solve(
        self,
        equation: Equation,
        u0: Float[ArrayLike, "*batch tokens features"],
        *,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
        args: PyTree = None,
        throw: bool = True,
        read_out: Callable[[Array], PyTree[Array]] | None = None,
    ) -> Solution:
        """The solution of an equation: see `solve`. An `exit` decides by the outputs of a
        state, `read_out`, by default the state."""
        number = self.steps_per_interval if self.stepsize_controller is None else None
        output = requested(equation, saveat, number, throw=throw)
        try:
            start = Start(jnp.asarray(u0), args, output)
            return _solve(self, equation, start, None if self.exit is None else read_out)
        except TypeError as error:
            if "forward-mode" not in str(error):
                raise
            raise InputError(
                f"solve: {type(self.solver).__name__} with gradient="
                f"{type(self.gradient).__name__}() has no derivative in forward mode (jax.jvp, "
                "jax.linearize). Write gradient=Direct(); implicit schemes have no such mode."
            ) from None

    def _trajectory(
        self, equation: Equation, start: Start, read_out: Callable | None
    ) -> Trajectory:
        controller = self.stepsize_controller
        if controller is not None:
            return adapt(
                equation, self.solver, controller, self.max_steps, start, self.gradient
            )
        number = self.steps_per_interval
        steps = plan_steps(equation, self.solver, number, start.u0, start.args)
        if self.exit is None:
            return self.gradient.march(steps, start)
        scan = self.gradient.scan
        return march_until(steps, start, scan, self.exit, read_out or jnp.asarray)


@eqx.filter_jit
def _solve(
    discretization: Discretization, equation: Equation, start: Start, read_out: Callable | None
) -> Solution:
    output = start.output
    check_state(equation, start.u0, start.args)
    trajectory = discretization._trajectory(equation, start, read_out)
    u1 = trajectory.raise_on_failure(equation) if output.throw else trajectory.u1
    depths = jnp.asarray(output.depths, u1.dtype)
    us = jax.vmap(lambda t, u: output.read(t, u, start.args))(
        depths, _states(equation, start.u0, u1, trajectory, output)
    )
    # The constraint with which the last interval ends.
    terms = equation.terms_of(equation.control.num_intervals - 1)
    constraint = operator_fields(terms)[-1].constraint(equation.horizon)
    return Solution(
        u1=u1,
        ts=depths,
        us=us,
        stats={
            "steps": trajectory.steps,
            "accepted": trajectory.steps - trajectory.rejected,
            "rejected": trajectory.rejected,
            "field_evaluations": trajectory.field_evaluations,
            "constraint_residual": jnp.max(constraint.residual(u1)),
        },
        result=trajectory.status.result,
        failed_at=trajectory.status.failed_at,
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
        which = np.searchsorted(equation.knots, output.depths)
        # The gradient of a slice is cheap; that of a choice by indices is a scatter.
        in_a_row = bool((np.diff(which) == 1).all())
        return at_knots[which[0] : which[-1] + 1] if in_a_row else at_knots[which]
    length = equation.control.interval_length
    return jax.vmap(lambda t: interpolate(trajectory.interpolation, length, t))(
        jnp.asarray(output.depths, u1.dtype)
    )
