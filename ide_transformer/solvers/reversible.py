"""Schemes whose steps can be undone."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ..arguments import PositiveFraction
from ..errors import InputError
from .couplings import AbstractCoupling, AbstractReversible, Couplings, Pair, Shear
from .evaluations import evaluations_made
from .runge_kutta import refuse_past
from .scheme import Step, StepField, Terms, U
from .wrapper import AbstractWrapper, Projected


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
        return Projected(self.with_projected_solver())

    def start(self, field: StepField, u: U) -> U:
        """The companion."""
        name = type(self.solver).__name__
        state = eqx.filter_eval_shape(field.start, self.solver, u)
        counted = evaluations_made(state) is not None
        if counted or isinstance(self.solver, diffrax.AbstractImplicitSolver):
            raise InputError(
                f"AlgebraicallyReversible({name}(…)): {name} is implicit, and only explicit "
                "steps can be undone."
            )
        refuse_past(
            f"AlgebraicallyReversible({name}(…))",
            self.solver,
            state,
            why="a step is undone from the present state alone",
            example="AlgebraicallyReversible(Strang(diffrax.Heun()))",
        )
        return u

    def couplings(self, field: StepField, first: Array | bool) -> Couplings:
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


class _Swap(AbstractCoupling):
    """The states of the pair change places."""

    def forward(self, pair: Pair) -> tuple[Pair, PyTree[Array]]:
        return (pair[1], pair[0]), ()

    def backward(self, pair: Pair, lost: PyTree[Array]) -> Pair:
        return pair[1], pair[0]


class Leapfrog(AbstractReversible):
    """The two-step midpoint rule,

        u_{n+1} = u_{n-1} + 2h F(t_n, u_n),   u_1 = u_0 + h F(0, u_0).

    Second order, one evaluation a step, and reversible: u_{n-1} follows from u_n and
    u_{n+1}. Stable for oscillations only, so take it over moderate depths. It starts again
    where the field jumps: on layers with one step each that is every step, so take it with
    a continuous control such as `PiecewiseLinear`. Reference: Shampine, Appl. Math. Comput.
    208 (2009).
    """

    restarts: ClassVar[bool] = True

    def order(self, terms: Terms) -> int:
        return 2

    def start(self, field: StepField, u: U) -> tuple:
        return jnp.asarray(field.t0), u

    def couplings(self, field: StepField, first: Array | bool) -> Couplings:
        # The companion is the state before; a start covers half the distance.
        distance = jnp.where(first, 1, 2) * field.h
        return Shear(Partial(_increment, field, distance), target=1), _Swap()

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        # A start is the same formula from the present state over half the distance.
        before, u_before = jax.tree.map(
            lambda now, before: jnp.where(made_jump, now, before), self.start(field, u), state
        )
        increment = _increment(field, field.t1 - before, u)
        y1 = jax.tree.map(jnp.add, u_before, increment)
        return Step.between(u, y1, state=(jnp.asarray(field.t0, before.dtype), u))


def _increment(field: StepField, distance: Array, u: U) -> U:
    """`distance F(t_n, u)`."""
    control = field.terms.contr(jnp.zeros_like(distance), distance)
    return field.terms.vf_prod(field.t0, u, field.args, control)
