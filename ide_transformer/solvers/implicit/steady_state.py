from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ...arguments import PositiveFloat
from ..base.projected import projected
from ..base.step import Step, StepField, Terms, U
from ..base.wrapper import AbstractWrapper
from ..splitting.lie_and_strang import LieTrotter
from .implicit_schemes import AbstractImplicitScheme
from .newton_krylov import find_root


class SteadyState(AbstractImplicitScheme, AbstractWrapper):
    """The end of time: a step goes to the state `u*` that a scheme leaves where it is,

        u* = Φ_h(u*),   Φ_h the step of the scheme,

    by Newton–Krylov, which starts with implicit steps in pseudo-time. With `Euler` that is
    `F(t, u*) = 0`, the limit `T → ∞` of the equation frozen at depth t. The gradient is
    that of the fixed point, by the implicit function theorem. It is sought for all samples and
    tokens together, padding among them: of several fixed points they decide which. With the
    step of a post-norm block and `SourcedAttention` it is the deep-equilibrium Transformer.
    Reference: Bai, Kolter, Koltun, arXiv 1909.01377.

    **Arguments:**

    - `solver`: the scheme whose fixed point is sought.
    - `tolerance`: of the fixed point, relative and absolute; by default one that fits the
      dtype of the state.
    """

    solver: diffrax.AbstractSolver = LieTrotter()
    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation
    consistent: ClassVar[bool] = False

    def projected(self) -> "SteadyState":
        """The fixed point of the projected scheme."""
        return eqx.tree_at(lambda s: s.solver, self, projected(self.solver))

    def order(self, terms: Terms) -> None:
        """A steady state has no order: it does not depend on the step."""
        return None

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        root = find_root(
            _residual,
            u,
            (self.solver, field),
            tolerance=self.tolerance,
            pseudo_step=0.5,
            max_steps=60,
        )
        made = state.plus(root.evaluations)
        return Step.between(u, root.value, state=made, result=root.result)


def _residual(u: Array, inputs: tuple[diffrax.AbstractSolver, StepField]) -> Array:
    solver, field = inputs
    return u - field.single_step(solver, u)
