"""Splitting schemes, which solve one operator at a time."""

import abc
import itertools
from collections.abc import Callable
from typing import ClassVar, TypeAlias

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..arguments import checked
from ..equation import AbstractExactOperator, Depth, Free, operator_fields, slow_terms
from ..errors import InputError
from .evaluations import EvaluationCount, evaluation_count
from .runge_kutta import RK4
from .scheme import AbstractOneStep, AbstractScheme, Step, StepField, Terms, first_failure
from .wrapper import Projected, projected, scheme_name, start_inside


@checked
class ExactFlow(AbstractOneStep):
    """The known flow of one operator, `u_{n+1} = flow(u_n, h)`, with the weights of the middle
    of the step. Exact if θ is constant over the step, else of order 2. Splittings use it for
    every operator with a known flow."""

    fixed_order: ClassVar[int | None] = 2

    def advance(self, field: StepField, u: Array) -> Array:
        operator = exact_operator(field.terms, field.t(0.5), field.args)
        fields = operator_fields(field.terms)
        if operator is None:
            names = [type(x.operator(field.t0, field.args)).__name__ for x in fields]
            raise InputError(
                f"ExactFlow: {' + '.join(names) or 'this term'} has no flow in closed form."
            )
        return operator.flow(u, fields[0].domain, field.h).astype(u.dtype)


def exact_operator(terms: PyTree, t: Depth, args: PyTree) -> AbstractExactOperator | None:
    """The operator of a term with one operator, if its flow is known; else `None`."""
    fields = operator_fields(terms)
    if len(fields) != 1:
        return None
    operator = fields[0].operator(t, args)
    return operator if isinstance(operator, AbstractExactOperator) else None


# `flow(index, start, end, u)`: the flow of an operator between two fractions of the step.
Flow: TypeAlias = Callable[[int, float, float, PyTree], PyTree]


class AbstractSplitting(AbstractScheme):
    """A scheme that solves `u_t = Σ_i A_i(u)` one operator at a time. Operators with a known
    flow use it; the others use `sub_solver`, which must have no memory."""

    sub_solver: eqx.AbstractVar[diffrax.AbstractSolver]

    term_structure: ClassVar = diffrax.MultiTerm

    # The order with exact sub-steps.
    splitting_order: eqx.AbstractClassVar[int]
    # Whether a step ends with a sub-step, so that the state is on its constraint.
    ends_with_sub_step: ClassVar[bool] = False

    def __check_init__(self):
        if splitting_of(self.sub_solver) is not None:
            raise InputError(
                f"{type(self).__name__}(sub_solver={type(self.sub_solver).__name__}(…)): a "
                "sub-step has one operator; pass a sub-solver that does not split."
            )

    def order(self, terms: diffrax.MultiTerm) -> int | None:
        """The smaller of the orders of the splitting and the sub-solver."""
        if isinstance(self.sub_solver, ExactFlow):
            return self.splitting_order
        sub_order = self.sub_solver.order(terms.terms[0])
        return None if sub_order is None else min(self.splitting_order, sub_order)

    def projected(self) -> diffrax.AbstractSolver:
        """The variant that projects after each sub-step, on the constraint of its operator, and
        at the end of the step."""
        inside = eqx.tree_at(lambda s: s.sub_solver, self, projected(self.sub_solver))
        return inside if self.ends_with_sub_step else Projected(inside)

    @abc.abstractmethod
    def flows(self, flow: Flow, num_operators: int, u: PyTree) -> tuple[PyTree, PyTree]:
        """The state after the step, and an error estimate or `None`. `flow` makes a sub-step of
        one of the operators."""

    def start(self, field: StepField, u: PyTree) -> EvaluationCount | None:
        where = f"{type(self).__name__}(sub_solver={scheme_name(self.sub_solver)}(…))"
        example = f"{type(self).__name__}(sub_solver=diffrax.Heun())"
        part = field.of_operators(self)[0]
        state = start_inside(where, self.sub_solver, part, u, example)
        fixed = evaluation_count(state) is None
        return None if fixed else EvaluationCount(jnp.zeros((), u.dtype))

    def make_step(self, field: StepField, u: PyTree, state: PyTree, made_jump: PyTree) -> Step:
        operators = field.of_operators(self)
        result = diffrax.RESULTS.successful

        def flow(index, start, end, y):
            nonlocal result, state
            part = StepField(operators[index].terms, field.t(start), field.t(end), field.args)
            solver = self.sub_solver
            exact = exact_operator(part.terms, part.t0, part.args)
            if exact is not None:
                if end < start and exact.dissipative:
                    raise InputError(
                        f"{type(self).__name__} makes backward steps, in which the "
                        f"dissipative {type(exact).__name__} grows without bound; use Strang."
                    )
                constraint = operator_fields(part.terms)[0].constraint(part.t0)
                solver = ExactFlow() if isinstance(constraint, Free) else solver
            # A first step, so that no stage of another operator is reused.
            step = part.first_step(solver, y)
            result = first_failure(result, step.result)
            evaluations = evaluation_count(step.solver_state)
            if evaluations is not None:
                state = state.plus(evaluations.count / len(operators))
            return step.y1

        y1, error = self.flows(flow, len(operators), u)
        return Step.between(u, y1, error=error, state=state, result=result)


def splitting_of(solver: PyTree) -> AbstractSplitting | None:
    """The splitting in a scheme or in its wrappers, or `None`."""
    # Not `isinstance`, which looks into solvers that diffrax wraps.
    while solver is not None and not issubclass(type(solver), AbstractSplitting):
        solver = getattr(solver, "solver", None)
    return solver


def with_sub_solver(
    solver: diffrax.AbstractSolver, sub_solver: diffrax.AbstractSolver
) -> diffrax.AbstractSolver:
    """Replaces the `sub_solver` of a splitting, also inside wrappers."""

    def sub_solver_of(x: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
        splitting = splitting_of(x)
        assert splitting is not None, f"{type(x).__name__} does not split"
        return splitting.sub_solver

    return eqx.tree_at(sub_solver_of, solver, sub_solver)


class AbstractSequentialSplitting(AbstractSplitting):
    """A splitting whose sub-steps follow one another. Each reads the weights of the depths that
    it covers."""

    ends_with_sub_step: ClassVar[bool] = True
    takes_trees: ClassVar[bool] = True

    @abc.abstractmethod
    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        """The sub-steps in order: (operator, start, end), as fractions of the step. Below 0 and
        above 1 the weights of the interval are extrapolated."""

    def flows(self, flow: Flow, num_operators: int, u: PyTree) -> tuple[PyTree, None]:
        for index, start, end in self.sub_steps(num_operators):
            u = flow(index, start, end, u)
        return u, None


@checked
class LieTrotter(AbstractSequentialSplitting):
    """Lie–Trotter splitting: one operator after another, each over the whole step,

        u_{n+1} = Φ_k(h) ∘ … ∘ Φ_2(h) ∘ Φ_1(h) u_n,

    with the flow Φ_i of u_t = A_i(u) by `sub_solver`. Order 1. Euler sub-steps with h = 1 give
    the pre-norm Transformer block, `u + A_1(u)` then `u + A_2(u)`; `Projected(Euler())` gives
    the post-norm block. Reference: Trotter, Proc. AMS 10 (1959).
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Euler()

    splitting_order: ClassVar[int] = 1

    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        return [(index, 0.0, 1.0) for index in range(num_operators)]


@checked
class Strang(AbstractSequentialSplitting):
    """Strang splitting: half steps of all operators, forth and back,

        u_{n+1} = Φ_1(h/2) ∘ … ∘ Φ_{k-1}(h/2) ∘ Φ_k(h) ∘ Φ_{k-1}(h/2) ∘ … ∘ Φ_1(h/2) u_n,

    with the flow Φ_i of u_t = A_i(u) by `sub_solver`. Order 2 if `sub_solver` has it. The
    operators (feed-forward, attention) with Euler and h = 1 give the Macaron net (Lu et al.,
    arXiv 1906.02762). Reference: Strang, SIAM J. Numer. Anal. 5 (1968).
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()

    splitting_order: ClassVar[int] = 2

    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        last = num_operators - 1
        forth = [(index, 0.0, 0.5) for index in range(last)]
        back = [(index, 0.5, 1.0) for index in reversed(range(last))]
        return [*forth, (last, 0.0, 1.0), *back]


@checked
class LieStrang(AbstractSplitting, diffrax.AbstractAdaptiveSolver):
    """Strang splitting with an error estimate for adaptive steps, the difference from
    Lie–Trotter,

        u_{n+1} = S(h) u_n,   error = S(h) u_n - T(h) u_n = O(h²),

    with the steps S of `Strang` and T of `LieTrotter`. Order 2 if `sub_solver` has it.
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()

    splitting_order: ClassVar[int] = 2
    ends_with_sub_step: ClassVar[bool] = True

    def error_order(self, terms: Terms) -> int:
        return 2

    def flows(self, flow: Flow, num_operators: int, u: Array) -> tuple[Array, Array]:
        second, _ = Strang(self.sub_solver).flows(flow, num_operators, u)
        first, _ = LieTrotter(self.sub_solver).flows(flow, num_operators, u)
        return second, second - first


@checked
class ParallelSplitting(AbstractSplitting):
    """Parallel splitting: the mean of the flows Φ_i of u_t = K A_i(u; θ(t)) for K operators,

        u_{n+1} = 1/K Σ_i Φ_i u_n,

    by `sub_solver`. Order 1. Euler sub-steps give unsplit Euler, the parallel block of GPT-J.
    Reference: Tai, Liu, Li and Chan, arXiv 2510.03989, appendix.
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Euler()

    splitting_order: ClassVar[int] = 1

    def projected(self) -> Projected:
        """The variant that projects the mean."""
        return Projected(self)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        # The flow of A_i over K steps, with the weights of this step.
        num_operators = len(field.of_operators(self))
        slow = field.with_terms(slow_terms(field.terms, field.t0, 1 / num_operators))
        return super().make_step(slow, u, state, made_jump)

    def flows(self, flow: Flow, num_operators: int, u: Array) -> tuple[Array, None]:
        ends = [flow(index, 0.0, float(num_operators), u) for index in range(num_operators)]
        return sum(ends[1:], ends[0]) / num_operators, None


class AbstractComposition(AbstractSequentialSplitting):
    """A composition of Strang steps,

        u_{n+1} = S(γ_s h) ∘ … ∘ S(γ_2 h) ∘ S(γ_1 h) u_n,   Σ γ_i = 1,

    of order 4 if the sub-solver has it. Consecutive sub-steps of one operator are merged.
    Reference: Hairer, Lubich, Wanner, Geometric Numerical Integration, section II.4.
    """

    splitting_order: ClassVar[int] = 4
    # γ.
    coefficients: eqx.AbstractClassVar[tuple[float, ...]]

    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        steps: list[tuple[int, float, float]] = []
        begin = 0.0
        for end in (*itertools.accumulate(self.coefficients[:-1]), 1.0):
            for index, start, stop in Strang(self.sub_solver).sub_steps(num_operators):
                start = begin + start * (end - begin)
                stop = begin + stop * (end - begin)
                if steps and steps[-1][0] == index:
                    start = steps.pop()[1]
                steps.append((index, start, stop))
            begin = end
        return steps


# γ_1 of `Yoshida4` and of `Suzuki4`.
_YOSHIDA = 1 / (2 - 2 ** (1 / 3))
_SUZUKI = 1 / (4 - 4 ** (1 / 3))


@checked
class Yoshida4(AbstractComposition):
    """The triple jump, order 4: `γ = (γ_1, 1 - 2γ_1, γ_1)`, `γ_1 = 1/(2 - 2^(1/3))`.
    Reference: Yoshida, Phys. Lett. A 150 (1990)."""

    sub_solver: diffrax.AbstractSolver = RK4()

    coefficients: ClassVar[tuple[float, ...]] = (_YOSHIDA, 1 - 2 * _YOSHIDA, _YOSHIDA)


@checked
class Suzuki4(AbstractComposition):
    """A composition of five steps, order 4: `γ = (γ_1, γ_1, 1 - 4γ_1, γ_1, γ_1)`,
    `γ_1 = 1/(4 - 4^(1/3))`. Its negative step is shorter than `Yoshida4`'s. Reference: Suzuki,
    Phys. Lett. A 146 (1990)."""

    sub_solver: diffrax.AbstractSolver = RK4()

    coefficients: ClassVar[tuple[float, ...]] = (
        *(_SUZUKI, _SUZUKI),
        1 - 4 * _SUZUKI,
        *(_SUZUKI, _SUZUKI),
    )
