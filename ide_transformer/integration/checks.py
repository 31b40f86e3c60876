"""What `solve` refuses, with what to write instead."""

import diffrax
import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..equation import Equation, operator_fields, without_constraint
from ..errors import InputError
from ..solvers import Couplings, find_couplings, loses_companion
from .gradients.gradient import AbstractGradient


def check_state(equation: Equation, u0: Array, args: PyTree) -> None:
    """Refuses an initial state or an operator whose shape does not fit the equation."""
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


def requested_depths(equation: Equation, saveat: diffrax.SaveAt) -> tuple[float, ...]:
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
    if any(not 0 <= t <= equation.horizon for t in inner):
        raise InputError(f"solve: saveat.ts = {inner} must lie in [0, {equation.horizon:g}].")
    start, end = [0.0] if subs.t0 else [], [equation.horizon] if subs.t1 else []
    return (*start, *inner, *end)


def check_steps(steps_per_interval: int) -> None:
    """Refuses a number of steps that does not divide an interval."""
    if not isinstance(steps_per_interval, int) or steps_per_interval < 1:
        raise InputError(
            f"solve: steps_per_interval={steps_per_interval!r} does not divide an interval "
            "into equal steps; it has to be a whole number from 1."
        )


_BACKSOLVE = (
    "solve: BacksolveAdjoint solves the state backwards, which is not the gradient of the "
    "discrete solution and is wrong for layered weights, where the field jumps; use "
    "gradient=Recompute() or Direct()."
)


def check_adaptive_gradient(gradient: AbstractGradient | diffrax.AbstractAdjoint) -> None:
    """Refuses the one adjoint that is wrong here."""
    if isinstance(gradient, diffrax.BacksolveAdjoint):
        raise InputError(_BACKSOLVE)


def check_march_gradient(
    gradient: AbstractGradient | diffrax.AbstractAdjoint,
) -> AbstractGradient:
    """The gradient mode of a march, which is none of diffrax's adjoints."""
    if isinstance(gradient, AbstractGradient):
        return gradient
    if isinstance(gradient, diffrax.BacksolveAdjoint):
        raise InputError(_BACKSOLVE)
    raise InputError(
        f"solve: gradient={type(gradient).__name__}() is an adjoint of diffrax's adaptive "
        "loop; fixed steps march by a scan: use gradient=Recompute(), Recursive() or Direct()."
    )


def check_reversible(
    equation: Equation, solver: diffrax.AbstractSolver, *, dense: bool
) -> Couplings:
    """The couplings of a scheme that `Reversible` can serve."""
    name = type(solver).__name__
    couplings = find_couplings(solver)
    if couplings is None:
        raise InputError(
            f"solve: gradient=Reversible() undoes the steps of the scheme, and those of {name} "
            f"cannot be undone; use AlgebraicallyReversible({name}(…)), which makes any "
            "explicit scheme reversible, Leapfrog(), or gradient=Recompute()."
        )
    if loses_companion(solver) and not equation.continuous:
        raise InputError(
            f"solve: gradient=Reversible() with {name}: a two-step scheme starts again where "
            "the field jumps, here at each layer, and a start cannot be undone; use a control "
            "without jumps, such as PiecewiseLinear, or AlgebraicallyReversible(…)."
        )
    if dense:
        raise InputError(
            "solve: gradient=Reversible() does not keep the steps that dense output and "
            "depths inside an interval need; ask for SaveAt(ts=equation.knots), or use "
            "gradient=Recompute()."
        )
    return couplings


def check_adaptive(
    equation: Equation,
    u0: Array,
    solver: diffrax.AbstractSolver,
    stepsize_controller: diffrax.AbstractStepSizeController,
    steps_per_interval: int,
) -> None:
    """Refuses what a step size controller cannot work with."""
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
        terms = equation.terms_of(0)
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
