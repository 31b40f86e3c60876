"""Splittings of first and second order."""

from typing import ClassVar

import diffrax
import jax
from jaxtyping import Array, PyTree

from ...equation import slowed
from ..base.projected import Projected
from ..base.scheme import operator_terms
from ..base.step import Step, StepField, Terms, U
from .splitting import AbstractSequentialSplitting, AbstractSplitting, Flow


class LieTrotter(AbstractSequentialSplitting):
    """Lie–Trotter splitting: one operator after the other, each over the whole step,

        u_{n+1} = Φ_k(h) ∘ … ∘ Φ_2(h) ∘ Φ_1(h) u_n,   Φ_i the flow of u_t = A_i(u).

    First order. With Euler sub-steps and h = 1 it is the sequential block of pre-norm
    Transformers, `u + A_1(u)` then `u + A_2(u)`; with `Projected(Euler())` sub-steps, the
    post-norm block. Reference: Trotter, Proc. AMS 10 (1959).

    **Arguments:**

    - `sub_solver`: solves `u_t = A_i(u)`.
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Euler()

    splitting_order: ClassVar[int] = 1

    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        return [(index, 0.0, 1.0) for index in range(num_operators)]


class Strang(AbstractSequentialSplitting):
    """Strang splitting: half steps up to the last operator, and back,

        u_{n+1} = Φ_1(h/2) ∘ … ∘ Φ_{k-1}(h/2) ∘ Φ_k(h) ∘ Φ_{k-1}(h/2) ∘ … ∘ Φ_1(h/2) u_n,

    Φ_i the flow of u_t = A_i(u). Second order if the sub-solver is at least second order;
    with Euler sub-steps only first. With the operators (feed-forward, attention), Euler
    and h = 1 it is the Macaron net (Lu et al., arXiv 1906.02762). Reference: Strang, SIAM J.
    Numer. Anal. 5 (1968).

    **Arguments:**

    - `sub_solver`: solves `u_t = A_i(u)`.
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()

    splitting_order: ClassVar[int] = 2

    def sub_steps(self, num_operators: int) -> list[tuple[int, float, float]]:
        last = num_operators - 1
        forth = [(index, 0.0, 0.5) for index in range(last)]
        back = [(index, 0.5, 1.0) for index in reversed(range(last))]
        return [*forth, (last, 0.0, 1.0), *back]


class LieStrang(AbstractSplitting, diffrax.AbstractAdaptiveSolver):
    """Strang splitting with an estimate of the splitting error, for adaptive steps: the
    difference to Lie–Trotter over the same step,

        u_{n+1} = S(h) u_n,   error = S(h) u_n - T(h) u_n = O(h²),

    S and T the steps of `Strang` and `LieTrotter`. Second order if the sub-solver is.

    **Arguments:**

    - `sub_solver`: solves `u_t = A_i(u)`; it should be of order two at least, or its error
      is taken for one of the splitting.
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()

    splitting_order: ClassVar[int] = 2

    def error_order(self, terms: Terms) -> int:
        return 2

    def flows(self, flow: Flow, number: int, u: Array) -> tuple[Array, Array]:
        second, _ = Strang(self.sub_solver).flows(flow, number, u)
        first, _ = LieTrotter(self.sub_solver).flows(flow, number, u)
        return second, jax.tree.map(lambda x, y: x - y, second, first)


class ParallelSplitting(AbstractSplitting):
    """Parallel splitting: each of the K operators by itself from the same state, K times
    as strong, then the mean,

        u_{n+1} = 1/K Σ_i Φ_i u_n,   Φ_i the flow of u_t = K A_i(u; θ(t)) over the step.

    First order. With Euler sub-steps it is unsplit Euler, the parallel block of GPT-J.
    Reference: Tai, Liu, Li and Chan, arXiv 2510.03989, appendix.

    **Arguments:**

    - `sub_solver`: solves `u_t = A_i(u)`.
    """

    sub_solver: diffrax.AbstractSolver = diffrax.Euler()

    splitting_order: ClassVar[int] = 1

    def projected(self) -> Projected:
        """The variant that projects the mean, which is on no constraint by itself."""
        return Projected(self)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        # The flow of A_i over K times the step, its weights those of the step.
        number = len(operator_terms(self, field.terms))
        slow = field.with_terms(slowed(field.terms, field.t0, number))
        return super().make_step(slow, u, state, made_jump)

    def flows(self, flow: Flow, number: int, u: Array) -> tuple[Array, None]:
        ends = [flow(index, 0.0, float(number), u) for index in range(number)]
        return jax.tree.map(lambda *y: sum(y[1:], y[0]) / number, *ends), None
