from typing import ClassVar

import diffrax

from .splitting import AbstractSequentialSplitting


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
