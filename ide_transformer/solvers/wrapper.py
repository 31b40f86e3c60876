"""Schemes that are built around another scheme."""

from collections.abc import Callable
from dataclasses import replace
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import diffrax
import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray, PyTree

from ..arguments import checked
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractRescaling,
    Depth,
    Free,
    operator_fields,
    parts,
    without_constraint,
)
from ..errors import InputError
from .couplings import Retraction
from .scheme import AbstractFieldScheme, Step, StepField, Terms, U, restarts_at_jumps


S = TypeVar("S")


class AbstractWrapper(AbstractFieldScheme):
    """A scheme around another one, whose properties it takes over.

    It may show the scheme inside it other terms than those of the equation.
    """

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

    def func(self, terms: Terms, t0: Depth, y0: U, args: PyTree) -> U:
        return self.solver.func(self.inner_terms(terms), t0, y0, args)


class AbstractTransparentWrapper(AbstractWrapper, diffrax.AbstractWrappedSolver):
    """A wrapper that makes the steps of the scheme inside it. It is explicit, adaptive or
    reversible if that scheme is."""

    @property
    def scan_kind(self) -> Any:
        """Kind of scan of the wrapped Runge–Kutta method, which diffrax's adjoints set."""
        return self.solver.scan_kind  # pyright: ignore[reportAttributeAccessIssue]

    def start(self, field: StepField, u: U) -> PyTree:
        return self._inner(field).start(self.solver, u)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        return self._inner(field).step(self.solver, u, state, made_jump)

    def _inner(self, field: StepField) -> StepField:
        return field.with_terms(self.inner_terms(field.terms))

    @property
    def couplings(self) -> Callable | None:
        """Couplings of the scheme inside, on the terms that it solves."""
        inner = getattr(self.solver, "couplings", None)
        if inner is None:
            return None
        return lambda field, first: inner(self._inner(field), first)

    @property
    def restarts(self) -> bool:
        return restarts_at_jumps(self.solver)


def replace_schemes(
    solver: PyTree, kind: type | UnionType, replacement: Callable[..., diffrax.AbstractSolver]
) -> PyTree:
    """`solver` with `replacement(x)` for every scheme x of class `kind` inside it, itself
    included."""

    matches = _of_class(kind)
    return jax.tree.map(lambda x: replacement(x) if matches(x) else x, solver, is_leaf=matches)


def schemes_inside(solver: PyTree, *kinds: type[S]) -> list[S]:
    """The schemes of classes `kinds` inside a scheme, itself included."""
    matches = _of_class(*kinds)
    return list(filter(matches, jax.tree.leaves(solver, is_leaf=matches)))


def _of_class(*kinds: type | UnionType) -> Callable[[object], bool]:
    # By class: diffrax's isinstance looks through wrappers.
    return lambda x: issubclass(type(x), kinds)


if TYPE_CHECKING:
    # A field with a default, so that it is no argument of the abstract class.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractRandomScheme(AbstractFieldScheme):
    """A scheme whose steps draw something from a `key`; without one they do not. A model gives
    it one for each solve of a training step, with that of its dropout."""

    key: AbstractVar[PRNGKeyArray | None]


def draws(solver: diffrax.AbstractSolver) -> bool:
    """Whether there is such a scheme inside a scheme, itself included."""
    return bool(schemes_inside(solver, AbstractRandomScheme))


def with_key(solver: diffrax.AbstractSolver, key: PRNGKeyArray) -> diffrax.AbstractSolver:
    """The scheme with a key for what it draws."""
    return replace_schemes(
        solver, AbstractRandomScheme, lambda scheme: replace(scheme, key=key)
    )


class Tangential(AbstractTransparentWrapper):
    """A scheme on the fields tangential to the constraint set S alone,

        u_{n+1} = Φ_h(u_n),   Φ_h the step on d/dε project(u + ε A_i(u)),

    which does not return to S: the state leaves it by the error of the scheme. `solve`
    projects every scheme that is not inside of this one.

    **Arguments:**

    - `solver`: the wrapped solver.
    """

    solver: diffrax.AbstractSolver

    def projected(self) -> "Tangential":
        """Itself."""
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

    **Arguments:**

    - `solver`: the wrapped solver.

    **Raises:** `InputError` where the terms are not those of an `Equation`, which alone
    know their constraint.
    """

    solver: diffrax.AbstractSolver

    # A configuration gives the constraint; the package then projects by itself.
    configurable: ClassVar[bool] = False

    def projected(self) -> "Projected":
        """Itself."""
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

    @property
    def couplings(self) -> Callable | None:
        """Couplings of the wrapped scheme, and the projection."""
        inner = super().couplings
        if inner is None:
            return None

        def couplings(field, first):
            constraint = operator_fields(field.terms)[-1].constraint(field.t1)
            if not isinstance(constraint, AbstractRescaling):
                raise InputError(
                    f"Projected: a projection on {type(constraint).__name__} cannot be "
                    "undone, so this scheme is not reversible; use gradient=Recompute(), or "
                    "one of Sphere, RMSSphere, LayerNorm and RMSNorm."
                )
            return (*inner(field, first), Retraction(constraint))

        return couplings
