"""Schemes that are built around another scheme."""

from collections.abc import Callable
from types import UnionType
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax
from jaxtyping import PyTree

from ...equation import Depth
from .scheme import AbstractFieldScheme, restarts_at_jumps
from .step import Step, StepField, Terms, U


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
