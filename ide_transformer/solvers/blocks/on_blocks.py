"""Schemes for fields that are made of whole blocks: the step of a splitting scheme of
length one, seen as one map of the state."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...equation import Depth, frozen
from ..base.reversible import Couplings, find_couplings
from ..base.single_step import single_step
from ..splitting.splitting import AbstractSplitting


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class BlockField(eqx.Module):
    """A block of layers as a vector field, `(t, u, args) ↦ B_t(u)`: B_t is one step of
    length 1 of a splitting scheme, its weights held at depth t.

    **Arguments:**

    - `terms`: those of the equation.
    - `block`: the splitting scheme.
    """

    terms: diffrax.MultiTerm
    block: AbstractSplitting

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        terms = frozen(self.terms, t)
        return single_step(self.block, terms, 0.0, 1.0, u, args)


class ResidualField(eqx.Module):
    """The residual of a block as a vector field, `(t, u, args) ↦ B_t(u) - u`; see
    `BlockField`. With `LieTrotter(Euler())` it is what one layer of a pre-norm Transformer
    adds to the state."""

    terms: diffrax.MultiTerm
    block: AbstractSplitting

    def __call__(self, t: Depth, u: Array, args: PyTree) -> Array:
        return BlockField(self.terms, self.block)(t, u, args) - u


class AbstractOnBlocks(diffrax.AbstractWrappedSolver):
    """An unsplit solver for a field made of whole blocks."""

    solver: AbstractVar[diffrax.AbstractSolver]
    block: AbstractVar[AbstractSplitting]

    term_structure: ClassVar = diffrax.MultiTerm

    @abc.abstractmethod
    def field(self, terms: diffrax.MultiTerm) -> Callable:
        """The field that the solver solves."""

    @property
    def interpolation_cls(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.interpolation_cls

    @property
    def scan_kind(self) -> Any:
        """That of the wrapped Runge–Kutta method, which diffrax's adjoints set."""
        return self.solver.scan_kind  # pyright: ignore[reportAttributeAccessIssue]

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        return self.solver.order(self._term(terms))

    def error_order(self, terms: PyTree[diffrax.AbstractTerm]):
        return self.solver.error_order(self._term(terms))

    def init(
        self,
        terms: diffrax.MultiTerm,
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
    ) -> PyTree:
        return self.solver.init(self._term(terms), t0, t1, y0, args)

    def step(
        self,
        terms: diffrax.MultiTerm,
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
        solver_state: PyTree,
        made_jump: PyTree,
    ) -> tuple:
        term = self._term(terms)
        return self.solver.step(term, t0, t1, y0, args, solver_state, made_jump)

    def func(
        self, terms: diffrax.MultiTerm, t0: Depth, y0: Array, args: PyTree
    ) -> PyTree[Array]:
        return self.solver.func(self._term(terms), t0, y0, args)

    @property
    def couplings(self) -> Couplings | None:
        """Those of the wrapped scheme, on the field of whole blocks."""
        inner = find_couplings(self.solver)
        if inner is None:
            return None
        return lambda terms, *step: inner(self._term(terms), *step)

    def _term(self, terms: PyTree[diffrax.AbstractTerm]) -> diffrax.ODETerm:
        return diffrax.ODETerm(self.field(terms))
