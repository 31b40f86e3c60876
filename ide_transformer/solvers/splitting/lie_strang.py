from typing import ClassVar

import diffrax
import jax
from jaxtyping import Array

from ..base.step import Terms
from .lie_trotter import LieTrotter
from .splitting import AbstractSplitting, Flow
from .strang import Strang


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
