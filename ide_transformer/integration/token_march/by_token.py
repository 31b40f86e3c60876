"""Whether the tokens of a text can be marched one after the other."""

import diffrax
import equinox as eqx
import jax

from ...equation import (
    AbstractExactOperator,
    AbstractOperator,
    AbstractTokenIntegral,
    Equation,
    TokenDomain,
    parts,
    with_source,
)
from ...solvers import AbstractImplicitScheme, keeps_constraint, schemes_inside, unrolled
from ..march import Steps
from ..solve import Discretization
from .over_all import block_over_all, interval_over_all, over_all
from .programs import marks_in_order


def why_not_by_token(
    equation: Equation, discretization: Discretization, state: jax.ShapeDtypeStruct
) -> str | None:
    """The reason why a discretization cannot march the tokens one after the other, and what
    to write instead; `None` if it can.

    **Arguments:**

    - `state`: the shape `[1, features]` and dtype of the state of a token.
    """
    if discretization.stepsize_controller is not None:
        return (
            "adaptive steps depend on the whole text; solve with fixed ones, "
            "model.with_solver(solver, steps_per_interval=…)."
        )
    if discretization.exit is not None:
        return (
            "tokens that stop at different depths are not cached; solve all of them to the "
            "end, model.with_exit(None)."
        )
    dimensions = equation.domain.points.shape[1]
    if dimensions != 1:
        return (
            f"the token domain has {dimensions} dimensions, in which tokens have no order; "
            "take a one-dimensional one."
        )
    if not equation.domain.in_order:
        return (
            "the points of the token domain are not known to be in increasing order, in which "
            "tokens are marched; sort them, and make the domain outside of a compiled function."
        )
    for operator in eqx.filter_eval_shape(equation.control, 0.0):
        reason = _why_coupled(operator, equation.domain)
        if reason is not None:
            return reason
    solver = keeps_constraint(discretization.solver, equation.constraint)
    return _why_not_in_order(equation, solver, state)


def _why_not_in_order(
    equation: Equation, solver: diffrax.AbstractSolver, state: jax.ShapeDtypeStruct
) -> str | None:
    """The reason why the evaluations of a scheme cannot be cached one by one."""
    name = type(solver).__name__
    implicit = schemes_inside(solver, diffrax.AbstractImplicitSolver, AbstractImplicitScheme)
    if implicit:
        kind = type(implicit[0]).__name__
        inside = "" if kind == name else f" in {name}"
        return (
            f"{kind}{inside} is implicit: how often it evaluates the field depends on "
            "the whole text, so there is no evaluation at which a token could be cached; "
            "use an explicit scheme, for example RK4() or Strang()."
        )
    domain = TokenDomain(equation.domain.points[:1])

    def one_step(u):
        control = with_source(equation.control, u)
        equation_here = Equation(control, equation.constraint, domain)
        return Steps(equation_here, unrolled(solver), 1, None, state.dtype)

    def init(u):
        steps = one_step(u)
        return steps.init(over_all(steps.equation.terms_of(0), domain), u, None)

    def interval(u):
        steps = one_step(u)
        weights = jax.tree.map(lambda x: x[0], steps.equation.intervals())
        solver_state = steps.init(steps.equation.terms_of(0), u, None)
        return interval_over_all(steps, domain)(u, solver_state, steps.indices[0], weights)

    if marks_in_order(init, state) != 0:
        return (
            f"{name} evaluates the field before its first step, where tokens are not "
            "cached; use another scheme, for example RK4() or Strang()."
        )
    if marks_in_order(interval, state) is None:
        return (
            f"{name} evaluates the field in a loop, in which its evaluations cannot be told "
            "apart; write them out one after the other, as RK4 does."
        )
    return None


def _why_coupled(operator: AbstractOperator, domain: TokenDomain) -> str | None:
    for part in parts(operator, AbstractTokenIntegral):
        name = type(part).__name__
        if not part.causal:
            return (
                f"{name} integrates over tokens that are still to come; make it causal, "
                f"{name}(…, causal=True)."
            )
        if isinstance(part, AbstractExactOperator):
            return f"{name} is solved by its flow, which couples tokens; use an Attention."
    if block_over_all(operator, domain).pointwise:
        return None
    name = type(operator.innermost).__name__
    return (
        f"{name} may couple tokens in ways that are not cached. If it acts token by token, "
        f"say so in its class, `pointwise: ClassVar[bool] = True`; if it is a causal integral "
        "over tokens, derive it from AbstractTokenIntegral."
    )
