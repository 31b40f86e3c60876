from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...errors import InputError
from ..depth import Depth
from .control import check_stack, stack_blocks
from .expansion import AbstractExpansion


class Hypernetwork(AbstractExpansion):
    """Weights that a small network makes out of the depth,

        θ(t) = Θ_0 + Σ_{1≤k<K} z_k(t) Θ_k,   z(t) = W2 silu(W1 e(t) + b1) + b2,

    e(t) sines and cosines of the depth. Reference: Tong et al., arXiv 2503.01329
    (DiffEqFormer).

    **Arguments:**

    - `coefficients`: Θ, a block whose arrays have a leading axis of length K.
    - `inner`, `outer`: W1 with b1 and W2 with b2, the bias as the last row.
    - `num_intervals`: L, the number of intervals in which steps are made.
    - `interval_length`: depth of one interval.
    """

    coefficients: PyTree
    inner: Float[Array, "embedding hidden"]
    outer: Float[Array, "inputs terms"]
    num_intervals: int = eqx.field(static=True)
    interval_length: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        check_stack(self, self.coefficients)

    def basis(self, t: Depth) -> Float[Array, " terms"]:
        t = jnp.asarray(t, self.inner.dtype) / self.horizon
        frequencies = np.pi * 2.0 ** np.arange((self.inner.shape[0] - 1) // 2)
        angles = t * jnp.asarray(frequencies, t.dtype)
        one = jnp.ones(1, t.dtype)
        embedding = jnp.concatenate([jnp.sin(angles), jnp.cos(angles), one])
        hidden = jnp.concatenate([jax.nn.silu(embedding @ self.inner), one])
        return jnp.concatenate([one, hidden @ self.outer])

    @classmethod
    def build(
        cls,
        make_block: Callable[[PRNGKeyArray], PyTree],
        num_intervals: int,
        *,
        key: PRNGKeyArray,
        terms: int | None = None,
        hidden: int = 32,
        frequencies: int = 4,
    ) -> "Hypernetwork":
        """Θ_0 is a block as drawn; each other Θ_k is the difference of two draws, so that
        what is the same in every draw, such as a gain of one, does not vary with depth.

        **Arguments:**

        - `terms`: K; by default as many as intervals.
        - `hidden`: width of the network.
        - `frequencies`: of the sines and cosines of e(t).
        """
        terms = num_intervals if terms is None else terms
        if min(terms, hidden, frequencies) < 1:
            raise InputError(
                f"Hypernetwork.build(terms={terms}, hidden={hidden}, frequencies="
                f"{frequencies}): each must be at least 1."
            )
        block_key, inner_key, outer_key = jax.random.split(key, 3)
        blocks = stack_blocks(make_block, terms, block_key)
        coefficients = jax.tree.map(
            lambda x: (
                jnp.concatenate([x[:1], (x[1:] - x[:-1]) / 2**0.5])
                if eqx.is_inexact_array(x)
                else x
            ),
            blocks,
        )
        embedding = 2 * frequencies + 1
        inner = jax.random.normal(inner_key, (embedding, hidden)) / embedding**0.5
        outer = jax.random.normal(outer_key, (hidden + 1, terms - 1)) / (hidden + 1) ** 0.5
        return cls(coefficients, inner, outer, num_intervals)
