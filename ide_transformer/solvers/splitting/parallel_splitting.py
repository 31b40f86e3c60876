from typing import ClassVar

import diffrax
import jax
from jaxtyping import Array

from ..base.projected import Projected
from .splitting import AbstractSplitting, Flow


class ParallelSplitting(AbstractSplitting):
    """Parallel splitting: each of the K operators by itself from the same state, K times
    as strong, then the mean,

        u_{n+1} = 1/K Σ_i Φ_i(K h) u_n,   Φ_i the flow of u_t = A_i(u).

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

    def flows(self, flow: Flow, number: int, u: Array) -> tuple[Array, None]:
        ends = [flow(index, 0.0, float(number), u) for index in range(number)]
        return jax.tree.map(lambda *y: sum(y[1:], y[0]) / number, *ends), None
