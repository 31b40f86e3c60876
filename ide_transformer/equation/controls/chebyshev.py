import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import PositiveInt, checked
from ..shapes import Depth
from .control import IntervalLength
from .expansion import AbstractExpansion, check_terms
from .stack import MakeBlock, combine, stack_blocks


class Chebyshev(AbstractExpansion):
    """Weights that are polynomials in depth,

        θ(t) = Σ_{k<K} Θ_k T_k(2t/T - 1),   T_k the Chebyshev polynomials.

    **Arguments:**

    - `coefficients`: Θ, a block whose arrays have a leading axis of length K.
    - `num_intervals`: L, the number of intervals in which steps are made.
    - `interval_length`: depth of one interval.
    """

    num_intervals: PositiveInt = eqx.field(static=True)
    interval_length: IntervalLength = eqx.field(static=True, default=1.0)

    def basis(self, t: Depth) -> Float[Array, " terms"]:
        return _polynomials(2 * jnp.asarray(t) / self.horizon - 1, self.terms)

    @classmethod
    @checked
    def build(
        cls,
        make_block: MakeBlock,
        num_intervals: PositiveInt,
        *,
        terms: PositiveInt | None = None,
        key: PRNGKeyArray,
    ) -> "Chebyshev":
        """Draws one block at each of `terms` Chebyshev points and interpolates, so that the
        weights have the size of those of ordinary layers at every depth.

        **Arguments:**

        - `terms`: K; by default as many as intervals.
        """
        terms = num_intervals if terms is None else terms
        check_terms("Chebyshev", "terms", terms)
        nodes = np.cos(np.pi * (np.arange(terms) + 0.5) / terms)
        basis = _polynomials(jnp.asarray(nodes), terms).T
        drawn = stack_blocks(make_block, terms, key)
        return cls(combine(jnp.linalg.inv(basis), drawn), num_intervals)


def _polynomials(x: Float[Array, "*points"], terms: int) -> Float[Array, "terms *points"]:
    """`T_0(x), …` by the recurrence `T_{k+1} = 2x T_k - T_{k-1}`. It also holds a little
    outside of [-1, 1], where schemes with negative sub-steps evaluate it."""
    values = [jnp.ones_like(x), x]
    while len(values) < terms:
        values.append(2 * x * values[-1] - values[-2])
    return jnp.stack(values[:terms])
