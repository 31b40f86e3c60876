"""The one entry point."""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..equation import Equation, operator_fields, without_constraint
from ..errors import InputError
from .adaptive import adapt
from .gradient import AbstractGradient, Checkpoint
from .march import Trajectory, march
from .solution import Solution, interpolate


def solve(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int = 1,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    gradient: AbstractGradient | diffrax.AbstractAdjoint = Checkpoint(),
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
    - `solver`: any `diffrax.AbstractSolver`.
    - `steps_per_interval`: equal steps in each interval; 1 is a step per layer.
    - `stepsize_controller`: choose the steps by an error estimate instead, for example
      `diffrax.PIDController(rtol=1e-3, atol=1e-6)`. No step crosses the boundary
      of an interval.
    - `gradient`: what is kept for the gradient, `Checkpoint()` or `Direct()`; for adaptive
      steps also an adjoint of diffrax.
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
        depths=_depths(equation, saveat),
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
    _check_state(equation, u0, args)
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        raise InputError(
            f"solve: {type(solver).__name__} is implicit, but solve makes explicit steps only; "
            "use for example diffrax.Tsit5() with adaptive steps where the field is stiff."
        )
    on_knots = bool(np.isin(depths, equation.knots).all())
    if stepsize_controller is None:
        _check_steps(steps_per_interval)
        if not isinstance(gradient, AbstractGradient):
            raise InputError(_not_for_fixed_steps(gradient))
        trajectory = march(
            equation,
            u0,
            solver=solver,
            steps_per_interval=steps_per_interval,
            gradient=gradient,
            args=args,
            dense=dense or not on_knots,
        )
    else:
        _check_adjoint(gradient)
        _check_adaptive(equation, u0, solver, stepsize_controller, steps_per_interval)
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
    if depths == (equation.depth,):
        us = u1[None]
    elif on_knots:
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
    interval = jax.tree.map(lambda x: x[last], equation.intervals())
    field = operator_fields(equation.interval_terms(last, interval))[-1]
    return jnp.max(field.constraint(equation.depth).residual(u1))


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
        f"solve failed between depths {start:g} and {end:g} of {equation.depth:g} with "
        f"{name}. {diffrax.RESULTS[getattr(diffrax.RESULTS, name)]} Take smaller steps, "
        "or call solve with throw=False and look at result, failed_at and us."
        for start, end in itertools.pairwise(knots)
        for name in _FAILURES
    ]
    failed = trajectory.result != diffrax.RESULTS.successful
    index = jnp.where(failed, inside * len(_FAILURES) + which, 0)
    return eqx.branched_error_if(trajectory.u1, failed, index, messages)


def _check_state(equation: Equation, u0: Array, args: PyTree) -> None:
    tokens = equation.domain.num_tokens
    if u0.ndim < 2 or u0.shape[-2] != tokens:
        raise InputError(
            f"solve: u0 has shape {u0.shape}; the equation's domain has {tokens} tokens, so "
            f"it must be [..., {tokens}, features]."
        )
    if not jnp.issubdtype(u0.dtype, jnp.floating):
        raise InputError(f"solve: u0 has dtype {u0.dtype}; the state must be floating point.")
    block = eqx.filter_eval_shape(equation.control, 0.0)
    fields = operator_fields(without_constraint(equation.terms))
    for operator, field in zip(block, fields, strict=True):
        rate = eqx.filter_eval_shape(field, 0.0, u0, args)
        if rate.shape != u0.shape:
            raise InputError(
                f"solve: {type(operator).__name__} maps a state of shape {u0.shape} to "
                f"{rate.shape}; an operator must return du/dt in the shape of u."
            )


def _depths(equation: Equation, saveat: diffrax.SaveAt) -> tuple[float, ...]:
    """The depths asked for, which must be known when the solve is compiled."""
    subs = saveat.subs
    if subs is None:
        subs = diffrax.SubSaveAt(t1=True)
    default = diffrax.SubSaveAt(t1=True)
    plain = isinstance(subs, diffrax.SubSaveAt) and (subs.steps, subs.fn) == (
        default.steps,
        default.fn,
    )
    if not plain or saveat.solver_state or saveat.controller_state or saveat.made_jump:
        raise InputError(
            f"solve: {saveat} asks for output that solve does not give; use t0, t1, ts or "
            "dense, for example diffrax.SaveAt(ts=equation.knots) for the state after each "
            "layer."
        )
    if isinstance(subs.ts, jax.core.Tracer):
        raise InputError(
            "solve: saveat.ts must be known when the solve is compiled, not computed under "
            "jit; for depths computed later use SaveAt(dense=True) and Solution.evaluate."
        )
    inner = [] if subs.ts is None else np.asarray(subs.ts, dtype=float).tolist()
    if any(not 0 <= t <= equation.depth for t in inner):
        raise InputError(f"solve: saveat.ts = {inner} must lie in [0, {equation.depth:g}].")
    start, end = [0.0] if subs.t0 else [], [equation.depth] if subs.t1 else []
    return (*start, *inner, *end)


def _check_steps(steps_per_interval: int) -> None:
    if not isinstance(steps_per_interval, int) or steps_per_interval < 1:
        raise InputError(
            f"solve: steps_per_interval={steps_per_interval!r} does not divide an interval "
            "into equal steps; it has to be a whole number from 1."
        )


_BACKSOLVE = (
    "solve: BacksolveAdjoint solves the state backwards, which is not the gradient of the "
    "discrete solution and is wrong for layered weights, where the field jumps; use "
    "gradient=Checkpoint() or Direct()."
)


def _check_adjoint(gradient: AbstractGradient | diffrax.AbstractAdjoint) -> None:
    if isinstance(gradient, diffrax.BacksolveAdjoint):
        raise InputError(_BACKSOLVE)


def _not_for_fixed_steps(gradient: diffrax.AbstractAdjoint) -> str:
    if isinstance(gradient, diffrax.BacksolveAdjoint):
        return _BACKSOLVE
    return (
        f"solve: gradient={type(gradient).__name__}() is an adjoint of diffrax's "
        "adaptive loop; fixed steps march by a scan: use gradient=Checkpoint() or Direct()."
    )


def _check_adaptive(
    equation: Equation,
    u0: Array,
    solver: diffrax.AbstractSolver,
    stepsize_controller: diffrax.AbstractStepSizeController,
    steps_per_interval: int,
) -> None:
    if steps_per_interval != 1:
        raise InputError(
            f"solve: steps_per_interval={steps_per_interval} and a stepsize_controller were "
            "both given; the controller chooses the steps, so drop steps_per_interval."
        )
    if isinstance(stepsize_controller, diffrax.ConstantStepSize):
        raise InputError(
            "solve: ConstantStepSize makes equal steps; say how many with "
            "steps_per_interval and drop the controller."
        )

    def error_estimate(equation, u0):
        terms = equation.interval_terms(0, jax.tree.map(lambda x: x[0], equation.intervals()))
        t0, t1 = jnp.zeros((), u0.dtype), jnp.ones((), u0.dtype)
        state = solver.init(terms, t0, t1, u0, None)
        return solver.step(terms, t0, t1, u0, None, state, True)[1]

    if eqx.filter_eval_shape(error_estimate, equation, u0) is None:
        name = type(solver).__name__
        raise InputError(
            f"solve: {name} has no error estimate for {type(stepsize_controller).__name__} "
            f"to choose steps by; use diffrax.HalfSolver({name}(…)), which compares one step "
            "with two halves, or an embedded pair such as diffrax.Tsit5()."
        )
