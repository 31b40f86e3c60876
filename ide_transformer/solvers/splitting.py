"""What the splitting schemes share: sub-steps, each made by a sub-solver on one operator."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import diffrax
from jaxtyping import Array, PyTree

from ..equation import Depth
from ..errors import InputError


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractSplitting(diffrax.AbstractSolver):
    """A scheme that solves `u_t = Σ_i A_i(u)` one operator at a time.

    A subclass lists its sub-steps; each one solves `u_t = A_i(u)` alone over a part of
    the step. An operator sees the depth that its own sub-step covers.
    """

    sub_solver: AbstractVar[diffrax.AbstractSolver]

    term_structure: ClassVar = diffrax.MultiTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    # The order with exact sub-steps.
    splitting_order: AbstractVar[int]

    def __check_init__(self):
        if isinstance(self.sub_solver, AbstractSplitting):
            raise InputError(
                f"{type(self).__name__}(sub_solver={type(self.sub_solver).__name__}(…)): a "
                "sub-step has one operator only, which cannot be split again; use an "
                "unsplit solver such as diffrax.Euler() or diffrax.Heun()."
            )

    @abc.abstractmethod
    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        """The sub-steps in order: (operator, start, end), in fractions of the step."""

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        """The smaller of the orders of the splitting and of the sub-solver."""
        term = terms.terms[0] if isinstance(terms, diffrax.MultiTerm) else terms
        sub_order = self.sub_solver.order(term)
        return None if sub_order is None else min(self.splitting_order, sub_order)

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> None:
        if not isinstance(terms, diffrax.MultiTerm):
            raise InputError(
                f"{type(self).__name__} splits a sum of operators, but was given "
                f"{type(terms).__name__}; pass equation.terms or a diffrax.MultiTerm."
            )

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: None,
        made_jump: PyTree,
    ) -> tuple:
        def at(fraction):
            # The ends are met exactly.
            if fraction == 0:
                return t0
            return t1 if fraction == 1 else t0 + fraction * (t1 - t0)

        y, result = y0, diffrax.RESULTS.successful
        for index, start, end in self.sub_steps(len(terms.terms)):
            term, sub_t0, sub_t1 = terms.terms[index], at(start), at(end)
            # Made anew: a state carried from one operator to the next would be wrong for
            # solvers that reuse their last stage.
            state = self.sub_solver.init(term, sub_t0, sub_t1, y, args)
            y, _, _, _, sub_result = self.sub_solver.step(
                term, sub_t0, sub_t1, y, args, state, False
            )
            result = diffrax.RESULTS.where(
                result == diffrax.RESULTS.successful, sub_result, result
            )
        return y, None, dict(y0=y0, y1=y), None, result

    def func(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        return terms.vf(t0, y0, args)
