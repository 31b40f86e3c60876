from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.evaluation_count import EvaluationCount
from ..base.projected import projected
from ..base.single_step import single_step
from ..splitting.lie_trotter import LieTrotter
from .implicit_scheme import AbstractImplicitScheme
from .newton_krylov import find_root


class SteadyState(AbstractImplicitScheme):
    """The end of time: a step goes to the state `u*` that a scheme leaves where it is,

        u* = Φ_h(u*),   Φ_h the step of the scheme,

    by Newton–Krylov, which starts with implicit steps in pseudo-time. With `Euler` that is
    `F(t, u*) = 0`, the limit `T → ∞` of the equation frozen at depth t. The gradient is
    that of the fixed point, by the implicit function theorem. With the step of a post-norm
    block and `SourcedAttention` it is the deep-equilibrium Transformer. Reference: Bai,
    Kolter, Koltun, arXiv 1909.01377.

    **Arguments:**

    - `solver`: the scheme whose fixed point is sought.
    - `tolerance`: of the fixed point, relative and absolute; by default one that fits the
      dtype of the state.
    """

    solver: diffrax.AbstractSolver = LieTrotter()
    tolerance: float | None = eqx.field(static=True, default=None)

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    @property
    def term_structure(self):
        return self.solver.term_structure

    def projected(self) -> "SteadyState":
        """The fixed point of the projected scheme."""
        return eqx.tree_at(lambda s: s.solver, self, projected(self.solver))

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> None:
        """A steady state has no order: it does not depend on the step."""
        return None

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
        solver_state: EvaluationCount,
        made_jump: PyTree,
    ) -> tuple:
        inputs = (self.solver, terms, t0, t1, args)
        y1, result, evaluations = find_root(
            _residual,
            y0,
            inputs,
            tolerance=self.tolerance,
            pseudo_step=0.5,
            max_steps=60,
        )
        made = EvaluationCount(solver_state.count + evaluations)
        return y1, None, dict(y0=y0, y1=y1), made, diffrax.RESULTS.promote(result)

    def func(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        return self.solver.func(terms, t0, y0, args)


def _residual(y: Array, inputs: tuple) -> Array:
    solver, terms, t0, t1, args = inputs
    return y - single_step(solver, terms, t0, t1, y, args)
