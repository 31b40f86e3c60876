from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import Array, PyTree


class Krylov(lx.AbstractLinearSolver):
    """GMRES with its tolerance relative to the root mean square of the right-hand side,
    which may be of any size: that of a gradient is often far below one.

    **Arguments:**

    - `rtol`: relative residual at which it stops.
    - `dimension`: vectors of a cycle.
    - `cycles`: how many cycles at most.
    - `strict`: whether a solution that did not reach `rtol` is turned into NaN. Within
      Newton's method it is a good step all the same.
    """

    rtol: float = eqx.field(static=True)
    dimension: int = eqx.field(static=True)
    cycles: int = eqx.field(static=True)
    strict: bool = eqx.field(static=True)

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> PyTree:
        return self._gmres().init(operator, options)

    def compute(self, state: PyTree, vector: PyTree[Array], options: dict[str, Any]) -> tuple:
        scale = optx.rms_norm(vector)
        scale = jnp.where(scale > 0, scale, 1)
        scaled = jax.tree.map(lambda x: x / scale, vector)
        value, result, stats = self._gmres().compute(state, scaled, options)
        factor = jnp.where(result == lx.RESULTS.successful, scale, jnp.nan)
        factor = factor if self.strict else scale
        value = jax.tree.map(lambda x: (x * factor).astype(x.dtype), value)
        return value, lx.RESULTS.successful, stats

    def transpose(self, state: PyTree, options: dict[str, Any]) -> tuple:
        return self._gmres().transpose(state, options)

    def conj(self, state: PyTree, options: dict[str, Any]) -> tuple:
        return self._gmres().conj(state, options)

    def assume_full_rank(self) -> bool:
        return True

    def _gmres(self) -> lx.GMRES:
        # The first pass of lineax only sets up the residual.
        return lx.GMRES(
            rtol=0.0,
            atol=self.rtol,
            norm=optx.rms_norm,
            restart=self.dimension,
            max_steps=self.cycles + 1,
        )
