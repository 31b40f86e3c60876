from typing import ClassVar

import diffrax
import equinox as eqx
import jax
from jax.tree_util import Partial
from jaxtyping import Array, Bool, PyTree

from ...equation import Depth
from ...errors import InputError
from ..base.couplings import AbstractCoupling, Shear
from ..base.projected import Projected, projected
from ..base.reversible import AbstractReversible
from ..base.single_step import single_step
from ..runge_kutta.explicit_runge_kutta import ExplicitRungeKutta


class AlgebraicallyReversible(AbstractReversible):
    """Any explicit scheme, made reversible: with its increment Ψ_h(t, u) = Φ_h(u) - u,

        u_{n+1} = λ u_n + (1-λ) v_n + Ψ_h(t_n, v_n),
        v_{n+1} = v_n - Ψ_{-h}(t_{n+1}, u_{n+1}),        v_0 = u_0.

    Both equations can be solved for what is old, so nothing has to be kept for a gradient
    (`Reversible`). The order is that of the scheme, at two of its steps a step. Rounding
    grows by 1/λ in each step on the way back. Reference: McCallum, Foster, arXiv 2410.11648.

    On a constraint the scheme inside projects, and then u once more, so that it is on S.

    **Arguments:**

    - `solver`: an explicit scheme without a memory of earlier steps.
    - `coupling`: λ in (0, 1]; 0.99 to 0.999. Smaller is more stable, larger more exact on
      the way back.

    **Raises:** `InputError` for a scheme that is implicit or that remembers.
    """

    solver: diffrax.AbstractSolver = diffrax.Euler()
    coupling: float = eqx.field(static=True, default=0.99)

    restarts: ClassVar[bool] = False

    def __check_init__(self):
        if not 0 < self.coupling <= 1:
            raise InputError(
                f"AlgebraicallyReversible(coupling={self.coupling}): it must lie in (0, 1]; "
                "the default, 0.99, serves a hundred layers."
            )

    @property
    def term_structure(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.term_structure

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        return self.solver.order(terms)

    def projected(self) -> diffrax.AbstractSolver:
        """The variant for a state that is kept on a constraint."""
        inner = projected(self.solver)
        return Projected(eqx.tree_at(lambda s: s.solver, self, inner))

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        self._check(terms, t0, t1, y0, args)
        return y0

    def couplings(
        self,
        terms: PyTree,
        t0: Depth,
        t1: Depth,
        args: PyTree,
        first: Bool[Array, ""] | bool,
    ) -> tuple[AbstractCoupling, ...]:
        step = (self.solver, terms, args, t0, t1)
        return (
            Shear(Partial(_ahead, *step, 1 - self.coupling), target=0, scale=self.coupling),
            Shear(Partial(_back, *step), target=1),
        )

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: PyTree[Array],
        made_jump: PyTree,
    ) -> tuple:
        pair = y0, solver_state
        for coupling in self.couplings(terms, t0, t1, args, False):
            pair, _ = coupling.forward(pair)
        y1, companion = pair
        return y1, None, dict(y0=y0, y1=y1), companion, diffrax.RESULTS.successful

    def _check(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> None:
        """Refuses schemes whose step is not a function of the present state alone."""
        name = type(self.solver).__name__
        state = eqx.filter_eval_shape(self.solver.init, terms, t0, t1, y0, args)
        stages = diffrax.AbstractERK | ExplicitRungeKutta
        if jax.tree.leaves(state) and not isinstance(self.solver, stages):
            raise InputError(
                f"AlgebraicallyReversible({name}(…)): {name} is implicit or remembers earlier "
                "steps, and only the step of an explicit scheme that does not can be undone; "
                "use for example AlgebraicallyReversible(Strang(diffrax.Heun()))."
            )


def _increment(solver, terms, args, t0, t1, u):
    """`Φ(u) - u` of one step from t0 to t1."""
    return single_step(solver, terms, t0, t1, u, args) - u


def _ahead(solver, terms, args, t0, t1, away, v):
    return away * v + _increment(solver, terms, args, t0, t1, v)


def _back(solver, terms, args, t0, t1, u):
    return -_increment(solver, terms, args, t1, t0, u)
