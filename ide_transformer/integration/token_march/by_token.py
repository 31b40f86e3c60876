"""Whether the tokens of a text can be marched one after the other."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...equation import (
    AbstractExactOperator,
    AbstractOperator,
    Dropout,
    Equation,
    Scaled,
    TokenDomain,
    with_source,
)
from ...solvers import AbstractImplicitScheme, unrolled
from .cache import evaluations_in_order
from .over_all import interval_over_all, is_integral, over_all, remembering


def why_not_by_token(
    equation: Equation, solver: diffrax.AbstractSolver, state: jax.ShapeDtypeStruct
) -> str | None:
    """Why fixed steps of `solver` cannot march the tokens one after the other, and what to
    write instead; `None` if they can.

    **Arguments:**

    - `state`: the shape `[1, features]` and dtype of the state of a token.
    """
    dimensions = equation.domain.points.shape[1]
    if dimensions != 1:
        return (
            f"the token domain has {dimensions} dimensions, in which tokens have no order; "
            "take a one-dimensional one."
        )
    for operator in eqx.filter_eval_shape(equation.control, 0.0):
        reason = _why_coupled(operator, equation.domain)
        if reason is not None:
            return reason
    name = type(solver).__name__
    implicit = _implicit(solver)
    if implicit:
        inside = "" if implicit[0] == name else f" in {name}"
        return (
            f"{implicit[0]}{inside} is implicit: how often it evaluates the field depends on "
            "the whole text, so there is no evaluation at which a token could be remembered; "
            "use an explicit scheme, for example RK4() or Strang()."
        )
    solver = unrolled(solver)
    t0, t1 = jnp.zeros((), state.dtype), jnp.ones((), state.dtype)
    domain = TokenDomain(equation.domain.points[:1])

    def init(u):
        terms = over_all(_sourced(equation, u, domain).terms_of(0), domain)
        return solver.init(terms, t0, t1, u, None)

    def interval(u):
        one = _sourced(equation, u, domain)
        weights = jax.tree.map(lambda x: x[0], one.intervals())
        steps = interval_over_all(one, domain, solver, 1, state.dtype)
        return steps(u, solver.init(one.terms_of(0), t0, t1, u, None), t0, weights)

    if evaluations_in_order(init, state) != 0:
        return (
            f"{name} evaluates the field before its first step, where tokens are not "
            "remembered; use another scheme, for example RK4() or Strang()."
        )
    if evaluations_in_order(interval, state) is None:
        return (
            f"{name} evaluates the field in a loop, in which its evaluations cannot be told "
            "apart; write them out one after the other, as RK4 does."
        )
    return None


def _sourced(equation: Equation, u: Array, domain: TokenDomain) -> Equation:
    return Equation(with_source(equation.control, u), equation.constraint, domain)


def _why_coupled(operator: AbstractOperator, domain: TokenDomain) -> str | None:
    for part in filter(is_integral, jax.tree.leaves(operator, is_leaf=is_integral)):
        name = type(part).__name__
        if not part.causal:
            return (
                f"{name} integrates over tokens that are still to come; make it causal, "
                f"{name}(…, causal=True)."
            )
        if isinstance(part, AbstractExactOperator):
            return f"{name} is solved by its flow, which couples tokens; use an Attention."
    if remembering(operator, domain).pointwise:
        return None
    while isinstance(operator, Scaled | Dropout):
        operator = operator.operator
    name = type(operator).__name__
    return (
        f"{name} may couple tokens in ways that are not remembered. If it acts token by token, "
        f"say so in its class, `pointwise: ClassVar[bool] = True`; if it is a causal integral "
        "over tokens, derive it from AbstractTokenIntegral."
    )


def _implicit(solver: diffrax.AbstractSolver) -> list[str]:
    """The names of the implicit schemes inside a scheme."""

    def is_implicit(x):
        # Not isinstance, which looks through wrappers.
        kinds = (diffrax.AbstractImplicitSolver, AbstractImplicitScheme)
        return issubclass(type(x), kinds)

    leaves = jax.tree.leaves(solver, is_leaf=is_implicit)
    return [type(x).__name__ for x in leaves if is_implicit(x)]
