from typing import ClassVar

import diffrax

from .splitting import AbstractSequentialSplitting


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
