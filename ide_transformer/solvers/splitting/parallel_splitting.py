from typing import ClassVar

import diffrax
import jax
from jaxtyping import Array, PyTree

from ...equation import slowed
from ..base.projected import Projected
from ..base.scheme import operator_terms
from ..base.step import Step, StepField, U
from .splitting import AbstractSplitting, Flow


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
