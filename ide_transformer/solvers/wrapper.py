"""Schemes around another scheme: its projected and reversible variants."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ..arguments import PositiveFraction, checked
from ..equation import (
    AbstractConstraint,
    AbstractRescaling,
    operator_fields,
    parts,
    without_constraint,
)
from ..errors import InputError
from .evaluations import EvaluationCount, evaluation_count
from .reversible import AbstractReversible, Couplings, Retraction, Shear, couplings_of
from .scheme import AbstractScheme, Step, StepField, Terms, restarts_at_jumps


class AbstractWrapper(AbstractScheme):
    """A scheme with the properties of the scheme inside, for which it may change the terms."""

    solver: eqx.AbstractVar[diffrax.AbstractSolver]

    def inner_terms(self, terms: Terms) -> Terms:
        """The terms for the inner scheme."""
        return terms

    @property
    def term_structure(self) -> PyTree:
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.interpolation_cls

    def order(self, terms: Terms) -> int | None:
        return self.solver.order(self.inner_terms(terms))

    def error_order(self, terms: Terms) -> Any:
        return self.solver.error_order(self.inner_terms(terms))

    def func(self, terms, t0, y0, args) -> PyTree[Array]:
        return self.solver.func(self.inner_terms(terms), t0, y0, args)

    def with_projected_solver(self) -> Any:
        return eqx.tree_at(lambda wrapper: wrapper.solver, self, projected(self.solver))


class AbstractTransparentWrapper(AbstractWrapper, diffrax.AbstractWrappedSolver):
    """A wrapper that makes the steps of the inner scheme."""

    @property
    def scan_kind(self) -> Any:
        # diffrax's adjoints set it.
        return self.solver.scan_kind  # pyright: ignore[reportAttributeAccessIssue]

    def start(self, field: StepField, u: Array) -> PyTree:
        return self._inner(field).start(self.solver, u)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        return self._inner(field).step(self.solver, u, state, made_jump)

    def _inner(self, field: StepField) -> StepField:
        return field.with_terms(self.inner_terms(field.terms))

    def couplings(self, field: StepField, first: Array | bool) -> Couplings | None:
        return couplings_of(self.solver, self._inner(field), first)

    @property
    def restarts(self) -> bool:
        return restarts_at_jumps(self.solver)


@checked
def projected(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """The variant of a scheme that `solve` uses on a constraint: `solver.projected()` if it has
    this method, else `Projected(solver)`. Splittings project after each sub-step."""
    variant = getattr(solver, "projected", None)
    return Projected(solver) if variant is None else variant()


@checked
class Projected(AbstractTransparentWrapper):
    """A scheme that projects onto the constraint set S after every step,

        u_{n+1} = project_S(Φ_h(u_n)),

    where Φ_h is a step of `solver`. For a solver of order 1, Φ_h uses the plain fields: with
    Euler sub-steps this is the post-norm Transformer, `LieTrotter(Projected(Euler()))`. For a
    solver of higher order, Φ_h uses the fields tangential to S, `d/dε project(u + ε A_i(u))`,
    which keeps the order. Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration,
    section IV.4.

    `LieTrotter(Projected(Euler()))` projects after each operator, on its constraint;
    `Projected(LieTrotter(Euler()))` projects once a step, on the last operator's constraint.
    `solve` adds it if the equation has a constraint. States inside a step are interpolated
    linearly between its ends, with an error of order 2.
    """

    solver: diffrax.AbstractSolver

    # Only `solve` and Python use it.
    configurable: ClassVar[bool] = False
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def projected(self) -> "Projected":
        return self

    def inner_terms(self, terms: Terms) -> Terms:
        if not operator_fields(terms):
            raise InputError(f"Projected: got {terms}, expected the terms of an Equation.")
        return without_constraint(terms) if self.order(terms) == 1 else terms

    def order(self, terms: Terms) -> int | None:
        return self.solver.order(terms)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        step = super().make_step(field, u, state, made_jump)
        y1 = self._constraint(field).project(step.y1)
        return step._replace(y1=y1, dense_info={"y0": u, "y1": y1})

    def couplings(self, field: StepField, first: Array | bool) -> Couplings | None:
        inner = super().couplings(field, first)
        if inner is None:
            return None
        constraint = self._constraint(field)
        if not isinstance(constraint, AbstractRescaling):
            raise InputError(
                f"{scheme_name(self)}: a projection on {type(constraint).__name__} cannot be "
                "undone; use gradient=Recompute(), or a sphere."
            )
        return (*inner, Retraction(constraint))

    def _constraint(self, field: StepField) -> AbstractConstraint:
        return operator_fields(field.terms)[-1].constraint(field.t1)


def scheme_name(solver: diffrax.AbstractSolver) -> str:
    """The class name of a scheme, without the `Projected` that `solve` adds."""
    while type(solver) is Projected:
        solver = solver.solver
    return type(solver).__name__


def start_inside(
    where: str, solver: diffrax.AbstractSolver, field: StepField, u: PyTree, example: str
) -> PyTree:
    """The starting memory of a scheme inside another one. Raises `InputError`, which begins
    with `where`, if the scheme remembers earlier steps."""
    state = eqx.filter_eval_shape(field.start, solver, u)
    inside = solver
    while issubclass(type(inside), diffrax.AbstractWrappedSolver):
        inside = inside.solver  # pyright: ignore[reportAttributeAccessIssue]
    # Neither a count nor the stage that a Runge–Kutta method reuses changes a step.
    num_arrays = len(jax.tree.leaves(state)) - len(parts(state, EvaluationCount))
    if num_arrays and not isinstance(inside, diffrax.AbstractRungeKutta):
        raise InputError(
            f"{where}: {scheme_name(solver)} uses earlier steps, which are lost; use {example}."
        )
    return state


@checked
class AlgebraicallyReversible(AbstractReversible, AbstractWrapper):
    """A reversible variant of an explicit scheme. With its increment Ψ_h(t, u) = Φ_h(u) - u,

        u_{n+1} = λ u_n + (1-λ) v_n + Ψ_h(t_n, v_n),
        v_{n+1} = v_n - Ψ_{-h}(t_{n+1}, u_{n+1}),        v_0 = u_0.

    Both equations can be solved for the old states, so the gradient mode `Reversible` stores
    none. The variant has the order of the scheme and makes two of its steps per step.
    Reference: McCallum, Foster, arXiv 2410.11648.

    If the equation decays at a rate μ, steps are stable only for `h μ ≤ -log λ`, 0.01 by
    default. On the way back rounding grows by 1/λ in each step: float32 keeps a relative error
    of 1e-3 for about 13, 90 and 900 steps with λ = 0.5, 0.9 and 0.99. Pre-norm blocks hardly
    decay; with `Damping` use a small λ and short steps.

    **Arguments:**

    - `solver`: an explicit scheme without memory.
    - `coupling`: λ in (0, 1]: a small one is stable, a large one exact on the way back.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    coupling: PositiveFraction = eqx.field(static=True, default=0.99)

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def projected(self) -> Projected:
        return Projected(self.with_projected_solver())

    def start(self, field: StepField, u: Array) -> Array:
        """The companion."""
        name = scheme_name(self.solver)
        where = f"AlgebraicallyReversible({name}(…))"
        example = "AlgebraicallyReversible(Strang(diffrax.Heun()))"
        state = start_inside(where, self.solver, field, u, example)
        implicit = isinstance(self.solver, diffrax.AbstractImplicitSolver)
        if implicit or evaluation_count(state) is not None:
            raise InputError(f"{where}: {name} is implicit; use an explicit scheme.")
        return u

    def couplings(self, field: StepField, first: Array | bool) -> Couplings:
        forward = Partial(_forward_increment, self.solver, field, 1 - self.coupling)
        backward = Partial(_backward_increment, self.solver, field.reversed())
        return Shear(forward, target=0, scale=self.coupling), Shear(backward, target=1)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        pair = u, state
        for coupling in self.couplings(field, False):
            pair, _ = coupling.forward(pair)
        return Step.between(u, pair[0], state=pair[1])


def _forward_increment(
    solver: diffrax.AbstractSolver, field: StepField, weight: float, v: Array
) -> Array:
    return weight * v + (field.first_step(solver, v).y1 - v)


def _backward_increment(solver: diffrax.AbstractSolver, field: StepField, u: Array) -> Array:
    return -(field.first_step(solver, u).y1 - u)
