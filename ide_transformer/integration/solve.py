"""The one entry point."""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..equation import Equation, operator_fields
from ..solvers import unrolled
from ..solvers.implicit import matrix_free
from .adaptive.adapt import adapt
from .checks import (
    check_adaptive,
    check_adaptive_gradient,
    check_march_gradient,
    check_state,
    check_steps,
    requested_depths,
)
from .gradients.gradient import AbstractGradient, Recompute
from .march import Trajectory, march
from .solution import Solution, interpolate


def solve(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int = 1,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    gradient: AbstractGradient | diffrax.AbstractAdjoint = Recompute(),
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    args: PyTree = None,
    max_steps: int = 256,
    throw: bool = True,
) -> Solution:
    """Solves `u_t = F(t, u)`, `u(0) = u0`, from depth 0 to T.

    Every stage of every step reads the weights of the interval in which the step is made,
    so schemes keep their order on layered weights too. `diffrax.diffeqsolve` on
    `equation.terms` gives the same answer where the control is continuous in depth; on
    `PiecewiseConstant`, called by hand, schemes with a stage at the end of the step (Heun,
    Tsit5) read the next layer there and do not.

    **Arguments:**

    - `equation`: what is solved.
    - `u0`: `[..., tokens, features]`. Leading axes share one sequence of steps; under
      `jax.vmap` each sample has its own.
    - `solver`: any `diffrax.AbstractSolver`. The implicit ones of diffrax solve their stages
      by Newton–Krylov, without a Jacobian matrix.
    - `steps_per_interval`: equal steps in each interval; 1 is a step per layer.
    - `stepsize_controller`: choose the steps by an error estimate instead, for example
      `diffrax.PIDController(rtol=1e-3, atol=1e-6)`. No step crosses the boundary
      of an interval, and padded tokens do not enter its error norm.
    - `gradient`: what is kept for the gradient: `Recompute()`, `Recursive()`, `Direct()`, or
      for reversible schemes `Reversible()`; for adaptive steps also an adjoint of diffrax.
    - `saveat`: a `diffrax.SaveAt` with any of `t0`, `t1`, `ts` and `dense`. The states of
      all layers are `SaveAt(ts=equation.knots)`.
    - `args`: handed to the vector field.
    - `max_steps`: the most steps that an adaptive solve may take in one interval.
    - `throw`: raise if the solve fails. Pass `False` inside a training step, where raising
      would make the device wait for the host, and look at `Solution.result`.

    **Raises:** `InputError` for arguments that do not fit; an error that says what failed
    and at which depth if the solve fails and `throw` is true.
    """
    return _solve(
        equation,
        u0,
        solver=solver,
        steps_per_interval=steps_per_interval,
        stepsize_controller=stepsize_controller,
        gradient=gradient,
        depths=requested_depths(equation, saveat),
        dense=saveat.dense,
        args=args,
        max_steps=max_steps,
        throw=throw,
    )


@eqx.filter_jit
def _solve(
    equation: Equation,
    u0: Array,
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int,
    stepsize_controller: diffrax.AbstractStepSizeController | None,
    gradient: AbstractGradient | diffrax.AbstractAdjoint,
    depths: tuple[float, ...],
    dense: bool,
    args: PyTree,
    max_steps: int,
    throw: bool,
) -> Solution:
    check_state(equation, u0, args)
    solver = matrix_free(solver)
    on_knots = bool(np.isin(depths, equation.knots).all())
    if stepsize_controller is None:
        check_steps(steps_per_interval)
        trajectory = march(
            equation,
            u0,
            solver=unrolled(solver),
            steps_per_interval=steps_per_interval,
            gradient=check_march_gradient(gradient),
            args=args,
            keep_states=on_knots and depths != (equation.horizon,),
            dense=dense or not on_knots,
            throw=throw,
        )
    else:
        check_adaptive_gradient(gradient)
        check_adaptive(equation, u0, solver, stepsize_controller, steps_per_interval)
        trajectory = adapt(
            equation,
            u0,
            solver=solver,
            stepsize_controller=stepsize_controller,
            gradient=gradient,
            args=args,
            dense=dense or not on_knots,
            max_steps=max_steps,
        )
    u1 = _raise_on_failure(equation, trajectory) if throw else trajectory.u1
    length = equation.control.interval_length
    if depths == (equation.horizon,):
        us = u1[None]
    elif on_knots:
        assert trajectory.states is not None
        at_knots = jnp.concatenate([u0[None], trajectory.states])
        us = at_knots[np.searchsorted(equation.knots, depths)]
    else:
        us = jax.vmap(lambda t: interpolate(trajectory.interpolation, length, t))(
            jnp.asarray(depths, u1.dtype)
        )
    return Solution(
        u1=u1,
        ts=jnp.asarray(depths, u1.dtype),
        us=us,
        stats={
            "steps": trajectory.steps,
            "accepted": trajectory.steps - trajectory.rejected,
            "rejected": trajectory.rejected,
            "field_evaluations": trajectory.field_evaluations,
            "constraint_residual": _residual(equation, u1),
        },
        result=trajectory.result,
        failed_at=trajectory.failed_at,
        interpolation=trajectory.interpolation if dense else None,
        interval_length=length,
    )


def _residual(equation: Equation, u1: Array) -> Array:
    """The largest residual at T, on the constraint with which the last interval ends."""
    last = equation.control.num_intervals - 1
    field = operator_fields(equation.terms_of(last))[-1]
    return jnp.max(field.constraint(equation.horizon).residual(u1))


# The ways in which a solve can end badly; anything else is an internal error.
_FAILURES = (
    "internal_error",
    "max_steps_reached",
    "dt_min_reached",
    "max_steps_rejected",
    "nonfinite",
    "nonlinear_max_steps_reached",
    "nonlinear_divergence",
    "singular",
    "breakdown",
    "stagnation",
)


def _raise_on_failure(equation: Equation, trajectory: Trajectory) -> Array:
    """`u1`, or an error that says how the solve failed and in which interval."""
    which = sum(
        jnp.where(trajectory.result == getattr(diffrax.RESULTS, name), index, 0)
        for index, name in enumerate(_FAILURES)
    )
    knots = equation.knots
    inside = jnp.searchsorted(jnp.asarray(knots[1:]), trajectory.failed_at)
    messages = [
        f"solve failed between depths {start:g} and {end:g} of {equation.horizon:g} with "
        f"{name}. {diffrax.RESULTS[getattr(diffrax.RESULTS, name)]} Take smaller steps, "
        "or call solve with throw=False and look at result, failed_at and us."
        for start, end in itertools.pairwise(knots)
        for name in _FAILURES
    ]
    failed = trajectory.result != diffrax.RESULTS.successful
    index = jnp.where(failed, inside * len(_FAILURES) + which, 0)
    return eqx.branched_error_if(trajectory.u1, failed, index, messages)
