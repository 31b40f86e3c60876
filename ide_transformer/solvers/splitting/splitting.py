"""What the splitting schemes share: sub-steps, each made by a sub-solver on one operator."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...equation import Depth, Free, operator_fields
from ...errors import InputError
from ..base.evaluation_count import EvaluationCount, evaluations_made
from ..base.projected import projected
from ..base.scheme import AbstractScheme
from ..base.status import first_failure
from .exact_flow import ExactFlow, exact_operator


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractSplitting(AbstractScheme):
    """A scheme that solves `u_t = Σ_i A_i(u)` one operator at a time, in whatever order.

    Operators that know their flow are solved by it, all others by the sub-solver.
    """

    sub_solver: AbstractVar[diffrax.AbstractSolver]

    term_structure: ClassVar = diffrax.MultiTerm

    # The order with exact sub-steps.
    splitting_order: AbstractVar[int]

    def __check_init__(self):
        if isinstance(self.sub_solver, AbstractSplitting):
            raise InputError(
                f"{type(self).__name__}(sub_solver={type(self.sub_solver).__name__}(…)): a "
                "sub-step has one operator only, which cannot be split again; use an "
                "unsplit solver such as diffrax.Euler() or diffrax.Heun()."
            )

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        """The smaller of the orders of the splitting and of the sub-solver."""
        if isinstance(self.sub_solver, ExactFlow):
            return self.splitting_order
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
    ) -> EvaluationCount | None:
        if not isinstance(terms, diffrax.MultiTerm):
            raise InputError(
                f"{type(self).__name__} splits a sum of operators, but was given "
                f"{type(terms).__name__}; pass equation.terms or a diffrax.MultiTerm."
            )
        return evaluations_made(self.sub_solver.init(terms.terms[0], t0, t1, y0, args))

    def projected(self) -> diffrax.AbstractSolver:
        """The variant that projects after each sub-step, on the constraint of its
        operator."""
        return eqx.tree_at(lambda s: s.sub_solver, self, projected(self.sub_solver))

    @abc.abstractmethod
    def flows(
        self, solve: Callable[[int, float, float, Array], Array], number: int, y0: Array
    ) -> tuple[Array, Array | None]:
        """The state after the step and an estimate of its error, or `None`.

        **Arguments:**

        - `solve(index, start, end, y)`: the flow of operator `index` from `start` to `end`,
          in fractions of the step, applied to `y`.
        - `number`: of operators.
        - `y0`: the state before the step.
        """

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: EvaluationCount | None,
        made_jump: PyTree,
    ) -> tuple:
        def at(fraction):
            # The ends are met exactly.
            if fraction == 0:
                return t0
            return t1 if fraction == 1 else t0 + fraction * (t1 - t0)

        result, made = diffrax.RESULTS.successful, solver_state

        def solve(index, start, end, y):
            nonlocal result, made
            term, sub_t0, sub_t1 = terms.terms[index], at(start), at(end)
            sub_solver = self._solver_of(term, sub_t0, backwards=end < start)
            # Made anew: a state carried from one operator to the next would be wrong for
            # solvers that reuse their last stage.
            state = sub_solver.init(term, sub_t0, sub_t1, y, args)
            y, _, _, state, sub_result = sub_solver.step(
                term, sub_t0, sub_t1, y, args, state, False
            )
            result = first_failure(result, sub_result)
            here = evaluations_made(state)
            if made is not None and here is not None:
                made = EvaluationCount(made.count + here.count / len(terms.terms))
            return y

        y1, error = self.flows(solve, len(terms.terms), y0)
        return y1, error, dict(y0=y0, y1=y1), made, result

    def _solver_of(
        self, term: diffrax.AbstractTerm, t: Depth, *, backwards: bool
    ) -> diffrax.AbstractSolver:
        """The flow in closed form of an operator that knows it, else the sub-solver. A
        constraint changes the flow, so on one the sub-solver remains."""
        operator = exact_operator(term, t)
        if operator is None:
            return self.sub_solver
        if backwards and operator.dissipative:
            raise InputError(
                f"{type(self).__name__} makes steps backwards in depth, in which the "
                f"dissipative {type(operator).__name__} grows without bound; use a splitting "
                "without them, such as Strang."
            )
        free = isinstance(operator_fields(term)[0].constraint(t), Free)
        return ExactFlow() if free else self.sub_solver


class AbstractSequentialSplitting(AbstractSplitting):
    """A splitting that makes its sub-steps one after the other, each from where the last
    one ended. An operator sees the depth that its own sub-step covers."""

    @abc.abstractmethod
    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        """The sub-steps in order: (operator, start, end), in fractions of the step."""

    def flows(
        self, solve: Callable[[int, float, float, Array], Array], number: int, y0: Array
    ) -> tuple[Array, None]:
        y = y0
        for index, start, end in self.sub_steps(number):
            y = solve(index, start, end, y)
        return y, None
