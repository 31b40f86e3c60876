import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import PositiveInt, checked
from ...errors import InputError
from ..shapes import Depth
from .control import IntervalLength
from .expansion import AbstractExpansion
from .stack import MakeBlock, stack_blocks


class Hypernetwork(AbstractExpansion):
    """Weights that a small network computes from the depth,

        θ(t) = Θ_0 + Σ_{1≤k<K} z_k(t) Θ_k,   z(t) = W2 silu(W1 e(t) + b1) + b2,

    e(t) sines and cosines of the depth. Reference: Tong et al., arXiv 2503.01329
    (DiffEqFormer).

    **Arguments:**

    - `coefficients`: Θ, a block whose arrays have a leading axis of length K.
    - `inner`, `outer`: W1 with b1 and W2 with b2, the bias as the last row.
    - `num_intervals`: L, the number of intervals in which steps are made.
    - `interval_length`: depth of one interval.
    """

    inner: Float[Array, "embedding hidden"]
    outer: Float[Array, "inputs others"]
    num_intervals: PositiveInt = eqx.field(static=True)
    interval_length: IntervalLength = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        embedding, hidden = self.inner.shape
        expected = hidden + 1, self.terms - 1
        if embedding % 2 == 0 or self.outer.shape != expected:
            raise InputError(
                f"Hypernetwork: inner has {embedding} rows, which must be odd; outer has shape "
                f"{self.outer.shape}, which must be {expected} for {self.terms} coefficients."
            )

    def basis(self, t: Depth) -> Float[Array, " terms"]:
        t = jnp.asarray(t, self.inner.dtype) / self.horizon
        frequencies = np.pi * 2.0 ** np.arange((self.inner.shape[0] - 1) // 2)
        angles = t * jnp.asarray(frequencies, t.dtype)
        one = jnp.ones(1, t.dtype)
        embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), one])
        hidden = jnp.concatenate([jax.nn.silu(embedding @ self.inner), one])
        return jnp.concatenate([one, hidden @ self.outer])

    @classmethod
    @checked
    def build(
        cls,
        make_block: MakeBlock,
        num_intervals: PositiveInt,
        *,
        hidden: PositiveInt = 32,
        frequencies: PositiveInt = 4,
        terms: PositiveInt | None = None,
        key: PRNGKeyArray,
    ) -> "Hypernetwork":
        """Draws a block for Θ_0; each other Θ_k is the difference of two draws. So weights
        that are the same in every draw, such as a gain of one, do not vary with depth.

        **Arguments:**

        - `terms`: K; by default as many as intervals.
        - `hidden`: width of the network.
        - `frequencies`: number of frequencies of the sines and cosines of e(t).
        """
        terms = num_intervals if terms is None else terms
        block_key, inner_key, outer_key = jax.random.split(key, 3)

        def differences(x):
            return jnp.concatenate([x[:1], (x[1:] - x[:-1]) / 2**0.5])

        coefficients = jax.tree.map(
            lambda x: differences(x) if eqx.is_inexact_array(x) else x,
            stack_blocks(make_block, terms, block_key),
        )
        embedding = 2 * frequencies + 1
        inner = jax.random.normal(inner_key, (embedding, hidden)) / embedding**0.5
        outer = jax.random.normal(outer_key, (hidden + 1, terms - 1)) / (hidden + 1) ** 0.5
        return cls(coefficients, inner, outer, num_intervals)
