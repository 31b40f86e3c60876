"""A step to the fixed point of a scheme."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
from jaxtyping import Array, PyTree

from ide_transformer.arguments import PositiveFloat, checked
from ide_transformer.equation import operator_fields
from ide_transformer.solvers import (
    AbstractImplicitScheme,
    AbstractWrapper,
    LieTrotter,
    Step,
    StepField,
    Terms,
    count_evaluations,
    find_root,
)


@checked
class SteadyState(AbstractImplicitScheme, AbstractWrapper):
    """A step to the fixed point of a scheme's step Φ_h,

        u* = Φ_h(u*),

    by Newton–Krylov, after implicit steps in pseudo-time. With `Euler` this is `F(t, u*) = 0`,
    the limit `T → ∞` of the equation frozen at depth t. The gradient uses the implicit function
    theorem. All samples and tokens are solved together, which matters if there are several
    fixed points. With a post-norm block and `SourcedAttention` it is the deep-equilibrium
    Transformer. Reference: Bai, Kolter, Koltun, arXiv 1909.01377.

    **Arguments:**

    - `solver`: the scheme of Φ_h.
    - `tolerance`: see `ImplicitEuler`.
    """

    solver: diffrax.AbstractSolver = LieTrotter()
    tolerance: PositiveFloat | None = eqx.field(static=True, default=None)

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation
    consistent: ClassVar[bool] = False

    def projected(self) -> "SteadyState":
        """Finds the fixed point of the projected scheme."""
        return self.with_projected_solver()

    def order(self, terms: Terms) -> None:
        return None

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        inputs = self.solver, field
        root = find_root(
            _change, u, inputs, tolerance=self.tolerance, pseudo_step=0.5, max_steps=60
        )
        cost = None
        if fields := operator_fields(field.terms):
            block = eqx.filter_eval_shape(
                lambda: [x.operator(field.t0, field.args) for x in fields]
            )
            cost = count_evaluations(self.solver, block, u.shape[-1])
        # A step without a known cost counts as one evaluation.
        new_state = state.plus(root.evaluations * (1.0 if cost is None else cost.first))
        return Step.between(u, root.value, state=new_state, result=root.result)


def _change(u: Array, inputs: tuple[diffrax.AbstractSolver, StepField]) -> Array:
    solver, field = inputs
    return u - field.first_step(solver, u).y1
