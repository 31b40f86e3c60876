"""Schemes that are built around another scheme."""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from ..arguments import checked
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractRescaling,
    Free,
    operator_fields,
    parts,
    without_constraint,
)
from ..errors import InputError
from .couplings import Couplings, Retraction, couplings_of
from .scheme import AbstractFieldScheme, Step, StepField, Terms, U, restarts_at_jumps


class AbstractWrapper(AbstractFieldScheme):
    """A scheme around another one, whose properties it takes over; it may show that one other
    terms than those of the equation."""

    solver: eqx.AbstractVar[diffrax.AbstractSolver]

    def inner_terms(self, terms: Terms) -> Terms:
        """The terms that the scheme inside solves."""
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

    def func(self, terms, t0, y0, args) -> U:
        return self.solver.func(self.inner_terms(terms), t0, y0, args)

    def with_projected_solver(self) -> Any:
        """The wrapper around the variant of its scheme for a state on a constraint."""
        return eqx.tree_at(lambda wrapper: wrapper.solver, self, projected(self.solver))


class AbstractTransparentWrapper(AbstractWrapper, diffrax.AbstractWrappedSolver):
    """A wrapper that makes the steps of the scheme inside it. It is explicit, adaptive or
    reversible if that scheme is."""

    @property
    def scan_kind(self) -> Any:
        # Of the wrapped Runge–Kutta method; diffrax's adjoints set it.
        return self.solver.scan_kind  # pyright: ignore[reportAttributeAccessIssue]

    def start(self, field: StepField, u: U) -> PyTree:
        return self._inner(field).start(self.solver, u)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        return self._inner(field).step(self.solver, u, state, made_jump)

    def _inner(self, field: StepField) -> StepField:
        return field.with_terms(self.inner_terms(field.terms))

    def couplings(self, field: StepField, first: Array | bool) -> Couplings | None:
        """The couplings of the scheme inside, on the terms that it solves."""
        return couplings_of(self.solver, self._inner(field), first)

    @property
    def restarts(self) -> bool:
        return restarts_at_jumps(self.solver)


class Tangential(AbstractTransparentWrapper):
    """A scheme on the fields tangential to the constraint set S alone,

        u_{n+1} = Φ_h(u_n),   Φ_h the step on d/dε project(u + ε A_i(u)),

    which does not return to S: the state leaves it by the error of the scheme. `solve`
    projects every scheme that is not inside of this one."""

    solver: diffrax.AbstractSolver

    def projected(self) -> "Tangential":
        return self


@checked
def projected(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """The variant of a scheme for a state that is kept on a constraint: `Projected(solver)`,
    unless the scheme has a method `projected` that knows a better place for the projection.
    The splittings project after each sub-step. `solve` takes this variant by itself."""
    own = getattr(solver, "projected", None)
    return Projected(solver) if own is None else own()


def keeps_constraint(
    solver: diffrax.AbstractSolver, constraint: AbstractControl
) -> diffrax.AbstractSolver:
    """`projected(solver)`; the scheme itself where nothing is constrained."""
    sets = parts(eqx.filter_eval_shape(constraint, 0.0), AbstractConstraint)
    return solver if all(isinstance(x, Free) for x in sets) else projected(solver)


class Projected(AbstractTransparentWrapper):
    """A scheme that returns to the constraint set S after every step,

        u_{n+1} = project_S(Φ_h(u_n)),

    Φ_h the step of the wrapped solver. Around a solver of order 1 the step uses
    the plain fields: retraction alone is first order, and with Euler sub-steps it is the
    post-norm Transformer, `LieTrotter(Projected(Euler()))`. Around a solver of higher order
    the step uses the fields tangential to S, `d/dε project(u + ε A_i(u))`; retraction then
    keeps the order of the solver and puts the state on S to rounding. Reference for the
    latter: Hairer, Lubich, Wanner, Geometric Numerical Integration, section IV.4.

    `LieTrotter(Projected(Euler()))` retracts after each operator, on the constraint of that
    operator; `Projected(LieTrotter(Euler()))` retracts once a step, on that of the last.

    `solve` puts it in by itself where the equation has a constraint.

    **Raises:** `InputError` where the terms are not those of an `Equation`, which alone
    know their constraint.
    """

    solver: diffrax.AbstractSolver

    # A configuration gives the constraint; the package then projects by itself.
    configurable: ClassVar[bool] = False

    def projected(self) -> "Projected":
        return self

    def inner_terms(self, terms: Terms) -> Terms:
        if not operator_fields(terms):
            raise InputError(
                "Projected needs the terms of an Equation (equation.terms), which know "
                f"their constraint; it was given {terms}."
            )
        return without_constraint(terms) if self.order(terms) == 1 else terms

    def order(self, terms: Terms) -> int | None:
        return self.solver.order(terms)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        step = super().make_step(field, u, state, made_jump)
        constraint = operator_fields(field.terms)[-1].constraint(field.t1)
        y1 = jax.tree.map(constraint.project, step.y1)
        return step._replace(y1=y1, dense_info={**step.dense_info, "y1": y1})

    def couplings(self, field: StepField, first: Array | bool) -> Couplings | None:
        inner = super().couplings(field, first)
        if inner is None:
            return None
        constraint = operator_fields(field.terms)[-1].constraint(field.t1)
        if not isinstance(constraint, AbstractRescaling):
            raise InputError(
                f"Projected: a projection on {type(constraint).__name__} cannot be undone, so "
                "this scheme is not reversible; use gradient=Recompute(), or one of Sphere, "
                "RMSSphere, LayerNorm and RMSNorm."
            )
        return (*inner, Retraction(constraint))
