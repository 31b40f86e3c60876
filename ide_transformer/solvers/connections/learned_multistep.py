import math
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...arguments import PositiveInt
from ..base.projected import Projected, projected
from ..base.step import Step, StepField
from ..base.wrapper import AbstractWrapper
from ..runge_kutta.runge_kutta import refuse_past
from ..splitting.lie_and_strang import LieTrotter
from .past import AbstractConnected, Past


class LearnedMultistep(AbstractConnected, AbstractWrapper):
    """A linear multistep method with learned coefficients over all states since the first,

        x_{n+1} = Φ_h(u_n),   u_{n+1} = Σ_{j=0}^{n+1} a_{n+1,j} x_j,   x_0 = u_0,

    Φ_h a step of another scheme. It starts with a_{n,n} = 1 and the others 0, which is that
    scheme. Learned coefficients belong to their step: there is no limit of small steps. With
    `LieTrotter(Euler())` and h = 1 it is the DenseFormer, whose depth-weighted average follows
    each block. Reference: Pagliardini et al., arXiv 2402.02622.

    **Arguments:**

    - `num_steps`: steps of a solve; it cannot make more.
    - `solver`: a scheme that carries nothing of earlier steps.

    **Raises:** `InputError` for a scheme that does, such as a multistep one.
    """

    weights: Float[Array, " weights"]
    solver: diffrax.AbstractSolver

    def __init__(self, num_steps: PositiveInt, solver: diffrax.AbstractSolver = LieTrotter()):
        last = jnp.cumsum(jnp.arange(2, num_steps + 2)) - 1
        self.weights = jnp.zeros(num_steps * (num_steps + 3) // 2).at[last].set(1.0)
        self.solver = solver

    @property
    def interpolation_cls(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return diffrax.LocalLinearInterpolation

    @property
    def num_steps(self) -> int:
        """The steps for which it has coefficients."""
        # n steps have n (n + 3) / 2 of them.
        return (math.isqrt(9 + 8 * self.weights.size) - 3) // 2

    @property
    def coefficients(self) -> Float[Array, "steps states"]:
        """a: a row for each step, a column for each x_j."""
        steps = self.num_steps
        rows, columns = jnp.tril_indices(steps, 1, steps + 1)
        return jnp.zeros((steps, steps + 1)).at[rows, columns].set(self.weights)

    def projected(self) -> Projected:
        """The variant whose steps of the other scheme are projected, and their combination."""
        return Projected(eqx.tree_at(lambda s: s.solver, self, projected(self.solver)))

    def start(self, field: StepField, u: Array) -> Past:
        inner = field.with_terms(self.inner_terms(field.terms))
        state = eqx.filter_eval_shape(inner.start, self.solver, u)
        refuse_past(
            f"LearnedMultistep({self.num_steps}, {type(self.solver).__name__}(…))",
            self.solver,
            state,
            why="each of its steps begins without any",
            example=f"LearnedMultistep({self.num_steps}, Strang())",
        )
        return Past.of(u, self.num_steps + 1)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        inner = field.with_terms(self.inner_terms(field.terms))
        past = state.plus(inner.single_step(self.solver, u))
        # The first row is that of the second state.
        row = self.coefficients[past.number - 2].astype(u.dtype)
        return Step.between(u, jnp.tensordot(row, past.values, 1), state=past)
