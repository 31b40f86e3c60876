from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...errors import InputError
from ..affine import nonnegative_array
from ..domain import TokenDomain
from ..shapes import Depth, State
from .exact import AbstractExactOperator


class DeltaRule(AbstractExactOperator):
    """The delta rule: each head of a token is drawn to the value v along the key k,

        u_t = β k (v - k·u),

    whose flow is known, since k·u decays to v at the rate β k·k:

        flow(u, h) = u + α k (v - k·u),   α = (1 - exp(-β h k·k)) / (k·k).

    At h = 1 it is the update of error-free linear attention, of which `u + β k (v - k·u)`,
    an Euler step, is the ordinary delta rule. Reference: arXiv 2512.12602.

    **Arguments:**

    - `key`: k, `[heads, features / heads]`.
    - `value`: v, `[heads]`.
    - `rate`: β ≥ 0, a number or `[heads]`.
    """

    key: Float[Array, "heads features"]
    value: Float[Array, " heads"]
    rate: Float[Array, "*heads"] = eqx.field(converter=nonnegative_array, default=1.0)

    configurable: ClassVar[bool] = False
    dissipative: ClassVar[bool] = True
    pointwise: ClassVar[bool] = True

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self._along_key(u, self._rates(u))

    def flow(self, u: State, domain: TokenDomain, h: Depth) -> State:
        squared = jnp.sum(self.key**2, axis=-1)
        rates = self._rates(u) * h
        # A key of length zero moves nothing; its quotient is kept finite.
        safe = jnp.where(squared > 0, squared, 1)
        alpha = jnp.where(squared > 0, -jnp.expm1(-rates * squared) / safe, rates)
        return u + self._along_key(u, alpha.astype(u.dtype))

    def _rates(self, u: Array) -> Float[Array, " heads"]:
        if u.shape[-1] != self.key.size:
            raise InputError(
                f"DeltaRule.key has shape {self.key.shape}, which makes {self.key.size} "
                f"features, but the state has {u.shape[-1]}."
            )
        if self.rate.shape not in ((), self.value.shape):
            raise InputError(
                f"DeltaRule.rate has shape {self.rate.shape}; give a number or [heads], "
                f"{self.value.shape}."
            )
        return jnp.broadcast_to(self.rate, self.value.shape)

    def _along_key(self, u: Array, strength: Float[Array, " heads"]) -> Array:
        """`strength k (v - k·u)`, head by head."""
        heads, features = self.key.shape
        split = u.reshape(*u.shape[:-1], heads, features)
        reached = jnp.einsum("...hd,hd->...h", split, self.key)
        gap = jnp.broadcast_to(self.value, reached.shape) - reached
        gap = gap * jnp.broadcast_to(strength, reached.shape)
        return jnp.einsum("...h,hd->...hd", gap, self.key).reshape(u.shape)
