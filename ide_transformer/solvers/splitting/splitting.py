"""Base classes of the splitting schemes."""

import abc
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...equation import Free, operator_fields
from ...errors import InputError
from ..base.evaluations import EvaluationCount, evaluations_made
from ..base.projected import projected
from ..base.scheme import AbstractFieldScheme, operator_terms
from ..base.step import Step, StepField, Terms, U, first_failure
from ..runge_kutta.runge_kutta import refuse_past
from .exact_flow import ExactFlow, exact_operator


# `flow(index, start, end, u)`: the state that the operator of this index leads to from `u`,
# between two fractions of the step.
Flow: TypeAlias = Callable[[int, float, float, Array], Array]


class AbstractSplitting(AbstractFieldScheme):
    """A scheme that solves `u_t = Σ_i A_i(u)` one operator at a time, in whatever order.

    Operators that know their flow are solved by it, all others by the sub-solver, which
    carries nothing of earlier steps: multistep schemes are refused.
    """

    sub_solver: eqx.AbstractVar[diffrax.AbstractSolver]

    term_structure: ClassVar = diffrax.MultiTerm

    # The order with exact sub-steps.
    splitting_order: eqx.AbstractClassVar[int]

    def __check_init__(self):
        if self.sub_solver.term_structure is diffrax.MultiTerm:
            raise InputError(
                f"{type(self).__name__}(sub_solver={type(self.sub_solver).__name__}(…)): a "
                "sub-step has one operator only, which cannot be split again; use an "
                "unsplit solver such as diffrax.Euler() or diffrax.Heun()."
            )

    def order(self, terms: Terms) -> int | None:
        """The smaller of the orders of the splitting and of the sub-solver."""
        if isinstance(self.sub_solver, ExactFlow):
            return self.splitting_order
        sub_order = self.sub_solver.order(operator_terms(self, terms)[0])
        return None if sub_order is None else min(self.splitting_order, sub_order)

    def projected(self) -> diffrax.AbstractSolver:
        """The variant that projects after each sub-step, on the constraint of its
        operator."""
        return eqx.tree_at(lambda s: s.sub_solver, self, projected(self.sub_solver))

    @abc.abstractmethod
    def flows(self, flow: Flow, number: int, u: Array) -> tuple[Array, Array | None]:
        """The state after the step and an estimate of its error, or `None`.

        **Arguments:**

        - `flow(index, start, end, u)`: the flow of operator `index` from `start` to `end`,
          in fractions of the step, applied to `u`.
        - `number`: of operators.
        - `u`: the state before the step.
        """

    def start(self, field: StepField, u: U) -> EvaluationCount | None:
        first = field.with_terms(operator_terms(self, field.terms)[0])
        state = first.start(self.sub_solver, u)
        refuse_past(
            f"{type(self).__name__}(sub_solver={type(self.sub_solver).__name__}(…))",
            self.sub_solver,
            state,
            why="each sub-step begins without any, the one before being of another operator",
            example=f"{type(self).__name__}(sub_solver=diffrax.Heun())",
        )
        return evaluations_made(state)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        terms = operator_terms(self, field.terms)
        result, made = diffrax.RESULTS.successful, state

        def flow(index, start, end, y):
            nonlocal result, made
            part = StepField(terms[index], field.t(start), field.t(end), field.args)
            solver = self._solver_for(part, backwards=end < start)
            # Solvers that reuse their last stage must not carry a state from one operator to
            # the next, so each sub-step starts from nothing.
            step = part.step(solver, y, part.start(solver, y), False)
            result = first_failure(result, step.result)
            here = evaluations_made(step.solver_state)
            if made is not None and here is not None:
                made = made.plus(here.count / len(terms))
            return step.y1

        y1, error = self.flows(flow, len(terms), u)
        return Step.between(u, y1, error=error, state=made, result=result)

    def _solver_for(self, part: StepField, *, backwards: bool) -> diffrax.AbstractSolver:
        """The flow in closed form of an operator that knows it, else the sub-solver. A
        constraint changes the flow, so on one the sub-solver remains."""
        operator = exact_operator(part.terms, part.t0, part.args)
        if operator is None:
            return self.sub_solver
        if backwards and operator.dissipative:
            raise InputError(
                f"{type(self).__name__} makes steps backwards in depth, in which the "
                f"dissipative {type(operator).__name__} grows without bound; use a splitting "
                "without them, such as Strang."
            )
        free = isinstance(operator_fields(part.terms)[0].constraint(part.t0), Free)
        return ExactFlow() if free else self.sub_solver


def splitting_of(solver: PyTree) -> AbstractSplitting | None:
    """The splitting that makes the steps of a scheme: itself, or the one inside its wrappers;
    `None` for a scheme that does not split."""
    # By class: diffrax's isinstance looks through wrappers.
    while solver is not None and not issubclass(type(solver), AbstractSplitting):
        solver = getattr(solver, "solver", None)
    return solver


def with_sub_solver(
    solver: diffrax.AbstractSolver, sub_solver: diffrax.AbstractSolver
) -> diffrax.AbstractSolver:
    """A scheme that splits, its sub-steps made by another solver."""

    def place(x: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
        splitting = splitting_of(x)
        assert splitting is not None, f"{type(x).__name__} does not split"
        return splitting.sub_solver

    return eqx.tree_at(place, solver, sub_solver)


class AbstractSequentialSplitting(AbstractSplitting):
    """A splitting that makes its sub-steps one after the other, each from where the last
    one ended. An operator sees the depth that its own sub-step covers."""

    @abc.abstractmethod
    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        """The sub-steps in order: (operator, start, end), in fractions of the step."""

    def flows(self, flow: Flow, number: int, u: Array) -> tuple[Array, None]:
        for index, start, end in self.sub_steps(number):
            u = flow(index, start, end, u)
        return u, None
