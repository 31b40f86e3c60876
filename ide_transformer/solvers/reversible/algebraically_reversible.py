from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PyTree

from ...arguments import PositiveFraction
from ...errors import InputError
from ..base.evaluations import evaluations_made
from ..base.projected import Projected, projected
from ..base.reversible import AbstractCoupling, AbstractReversible, Shear
from ..base.step import Step, StepField, U
from ..base.wrapper import AbstractWrapper
from ..runge_kutta.runge_kutta import refuse_past


class AlgebraicallyReversible(AbstractReversible, AbstractWrapper):
    """Any explicit scheme, made reversible: with its increment Ψ_h(t, u) = Φ_h(u) - u,

        u_{n+1} = λ u_n + (1-λ) v_n + Ψ_h(t_n, v_n),
        v_{n+1} = v_n - Ψ_{-h}(t_{n+1}, u_{n+1}),        v_0 = u_0.

    Both equations can be solved for the old states, so nothing has to be kept for a gradient
    (`Reversible`). The order is that of the scheme, at two of its steps a step. Reference:
    McCallum, Foster, arXiv 2410.11648.

    The price: where the equation decays at a rate μ, `u - v` grows like `λ^n e^{μ t}`, so a
    step is stable for `h μ ≤ -log λ` only, 0.01 at the default; and rounding grows by 1/λ in
    each step on the way back, so that float32 serves a relative error of 1e-3 for about 13,
    90 and 900 steps with λ = 0.5, 0.9 and 0.99. Pre-norm blocks hardly decay: measured on 12
    of them, with 1 to 4 steps a layer, the error is 1 to 1.4 times that of the scheme for
    orders 2 and 4, the same for λ from 0.9 to 0.999; for order 1 it is least at 0.9 to 0.95,
    half of that at 0.99. An equation with `Damping` needs small λ and short steps, or
    another way to save memory: `Recursive`.

    On a constraint the scheme inside projects, and then u once more, so that it is on S.

    **Arguments:**

    - `solver`: an explicit scheme that carries nothing of earlier steps.
    - `coupling`: λ in (0, 1]. Smaller is more stable, larger more exact on the way back.

    **Raises:** `InputError` for a scheme that is implicit or that carries something of earlier
    steps.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    coupling: PositiveFraction = eqx.field(static=True, default=0.99)

    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def projected(self) -> diffrax.AbstractSolver:
        """The variant for a state that is kept on a constraint."""
        inner = projected(self.solver)
        return Projected(eqx.tree_at(lambda s: s.solver, self, inner))

    def start(self, field: StepField, u: U) -> U:
        """The companion. Refuses schemes whose step is not a function of the present state
        alone."""
        name = type(self.solver).__name__
        state = eqx.filter_eval_shape(field.start, self.solver, u)
        counted = evaluations_made(state) is not None
        implicit = counted or isinstance(self.solver, diffrax.AbstractImplicitSolver)
        example = "AlgebraicallyReversible(Strang(diffrax.Heun()))"
        if implicit:
            raise InputError(
                f"AlgebraicallyReversible({name}(…)): {name} is implicit, and only explicit "
                f"steps can be undone; use for example {example}."
            )
        refuse_past(
            f"AlgebraicallyReversible({name}(…))",
            self.solver,
            state,
            why="a step is undone from the present state alone",
            example=example,
        )
        return u

    def couplings(
        self, field: StepField, first: Bool[Array, ""] | bool
    ) -> tuple[AbstractCoupling, ...]:
        ahead = Partial(_ahead, self.solver, field, 1 - self.coupling)
        back = Partial(_back, self.solver, field.reversed())
        return Shear(ahead, target=0, scale=self.coupling), Shear(back, target=1)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        pair = u, state
        for coupling in self.couplings(field, False):
            pair, _ = coupling.forward(pair)
        y1, companion = pair
        return Step.between(u, y1, state=companion)


def _ahead(solver: diffrax.AbstractSolver, field: StepField, away: float, v: Array) -> Array:
    return away * v + (field.single_step(solver, v) - v)


def _back(solver: diffrax.AbstractSolver, field: StepField, u: Array) -> Array:
    return -(field.single_step(solver, u) - u)
