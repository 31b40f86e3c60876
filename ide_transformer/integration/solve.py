"""`solve`, the entry point for an equation."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..arguments import PositiveInt, checked
from ..equation import Equation, operator_fields
from ..errors import InputError
from .adaptive import adapt
from .exits import AbstractExit, march_until
from .gradients import AbstractGradient, Recompute
from .march import check_state, plan_steps
from .mesh import Mesh
from .output import Output, Solution, Start, Trajectory, interpolate, parse_saveat


@checked
def solve(
    equation: Equation,
    u0: Float[ArrayLike, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: PositiveInt = 1,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    gradient: AbstractGradient = Recompute(),
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    args: PyTree = None,
    max_steps: PositiveInt = 256,
    throw: bool = True,
) -> Solution:
    """Solves `u_t = F(t, u)`, `u(0) = u0`, from depth 0 to T.

    Every stage of a step reads the weights of its own interval, so schemes keep their order on
    layered weights. `diffrax.diffeqsolve` on `equation.terms` gives the same answer if the
    control is continuous. On `PiecewiseConstant` it does not: a stage at the end of a step
    (Heun, Tsit5) reads the next layer.

    **Arguments:**

    - `equation`: see `Equation`.
    - `u0`: `[..., tokens, features]`. Leading axes share their steps; under `jax.vmap` each
      sample has its own. If u0 is off the constraint S, the output at depth 0 is u0 and the
      first step moves the state to S. To start on S pass `constraint.project(u0)`.
    - `solver`: a `diffrax.AbstractSolver` for ordinary equations with one state, not
      `SemiImplicitEuler`, `KenCarp3` to `5`, `Sil3` or one for stochastic equations. Implicit
      solvers of diffrax use Newton–Krylov, without a Jacobian matrix.
    - `steps_per_interval`: equal steps in each interval; 1 is a step per layer.
    - `stepsize_controller`: adaptive steps instead, for example
      `diffrax.PIDController(rtol=1e-3, atol=1e-6)`. No step crosses an interval boundary, and
      padded tokens do not enter the error norm.
    - `gradient`: which values are stored for the gradient: `Recompute()`, `Recursive()`,
      `Direct()`, or `Reversible()` for reversible schemes.
    - `saveat`: a `diffrax.SaveAt` with any of `t0`, `t1`, `ts`, `fn`, `dense` and, for fixed
      steps, `steps`. `SaveAt(ts=equation.knots)` gives the states of all layers. States at the
      ends of steps are on S; between them they are interpolated linearly, with order 2.
    - `args`: passed to `AbstractOperator.at`; for schemes with momentum, an `InitialVelocity`.
    - `max_steps`: the most adaptive steps in one interval.
    - `throw`: raise if the solve fails. In a training step pass `False`, so that the device
      does not wait for the host, and check `Solution.result`.

    **Returns:** a `Solution`.

    **Raises:** `InputError` for arguments that do not fit; with `throw`, an error that names
    the failure and its depth.
    """
    equal = stepsize_controller is None or steps_per_interval != 1
    mesh = Mesh(
        steps=steps_per_interval if equal else None,
        stepsize_controller=stepsize_controller,
        max_steps=max_steps,
    )
    return solve_on(
        mesh, solver, equation, u0, gradient=gradient, saveat=saveat, args=args, throw=throw
    )


def solve_on(
    mesh: Mesh,
    solver: diffrax.AbstractSolver,
    equation: Equation,
    u0: Float[ArrayLike, "*batch tokens features"],
    *,
    gradient: AbstractGradient,
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    args: PyTree = None,
    throw: bool = True,
    exit: AbstractExit | None = None,
    read_out: Callable[[Array], PyTree[Array]] = jnp.asarray,
) -> Solution:
    """Solves on a mesh with all step options, see `solve`. An `exit` stops tokens; `read_out`
    maps a state to outputs."""
    output = parse_saveat(equation, saveat, mesh.steps, throw=throw)
    start = Start(jnp.asarray(u0), args, output)
    exit_by = None if exit is None else (exit, read_out)
    try:
        return _solve(mesh, solver, gradient, equation, start, exit_by)
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise InputError(
            f"solve: {type(gradient).__name__}() and implicit schemes have no forward mode "
            "(jax.jvp, jax.jacfwd, jax.hessian); use an explicit scheme and gradient=Direct(), "
            "or reverse mode (jax.grad, jax.vjp, jax.jacrev)."
        ) from error


@eqx.filter_jit
def _solve(
    mesh: Mesh,
    solver: diffrax.AbstractSolver,
    gradient: AbstractGradient,
    equation: Equation,
    start: Start,
    exit: tuple[AbstractExit, Callable] | None,
) -> Solution:
    output = start.output
    check_state(equation, start.u0, start.args)
    if mesh.controller is not None:
        trajectory = adapt(equation, solver, mesh, start, gradient)
    else:
        steps = plan_steps(equation, solver, mesh.steps or 1, start.u0, start.args)
        if exit is None:
            trajectory = gradient.march(steps, start)
        else:
            trajectory = march_until(steps, start, gradient.scan, *exit)
    u1 = trajectory.raise_on_failure(equation) if output.throw else trajectory.u1
    depths = jnp.asarray(output.depths, u1.dtype)
    us = jax.vmap(lambda t, u: output.read(t, u, start.args))(
        depths, _states(equation, start.u0, u1, trajectory, output)
    )
    # The constraint at the end of the last interval.
    terms = equation.terms_of(equation.control.layers - 1)
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
    if output.depths == (equation.horizon,):
        return u1[None]
    if trajectory.states is not None and output.states:
        at_knots = jnp.concatenate([u0[None], trajectory.states])
        indices = np.searchsorted(equation.knots, output.depths)
        # A slice has a cheaper gradient than indexing, whose gradient is a scatter.
        are_consecutive = bool((np.diff(indices) == 1).all())
        return at_knots[indices[0] : indices[-1] + 1] if are_consecutive else at_knots[indices]
    length = equation.control.interval_length
    return jax.vmap(lambda t: interpolate(trajectory.interpolation, length, t))(
        jnp.asarray(output.depths, u1.dtype)
    )
