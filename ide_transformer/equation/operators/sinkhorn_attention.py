import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from ...arguments import NonNegativeFloat, NonNegativeInt, PositiveInt
from ..constraints.sets import AbstractConstraint, Free
from ..domain import TokenDomain
from ..shapes import State
from .abstract_attention import AbstractAttention, Maps


class SinkhornAttention(AbstractAttention):
    """Attention whose kernel is doubly stochastic: of the mass that tokens are looked at with,
    each gets as much as its weight,

        du/dt = Σ_h ∫_Ωx γ_h(x, x'; u) V_h(x') dx' W^O_h,
        γ_h = exp(f(x) + s_h(x, x') + g(x')),
        ∫ γ_h(x, η) dη = 1,   ∫ γ_h(η, x') dη = 1 in the limit of many iterations,

    over a domain of measure 1, with `s_h = ⟨Q_h, K_h⟩ / sqrt(d)` and `Q, K, V` linear maps of
    N(u), d the features of a head. f and g are found by turns, f last; without iterations g = 0
    and this is the softmax. It sees all tokens, so it is for encoders. Source: Sander, Ablin,
    Blondel, Peyré, "Sinkformers", 2022, arXiv 2110.11773.

    **Arguments:**

    - `features`: width of the state.
    - `heads`: number of heads; must divide `features`.
    - `iterations`: how often g is found.
    - `normalization`: N, applied to the input.
    - `bias`: whether the linear maps have biases.
    - `std`, `output_std`: standard deviation of the initial weights, and of those of the
      output map (default: the same).

    **Raises:** `InputError` where heads do not divide.
    """

    iterations: int = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        heads: PositiveInt,
        *,
        key: PRNGKeyArray,
        iterations: NonNegativeInt = 3,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
        output_std: NonNegativeFloat | None = None,
    ):
        super().__init__(
            features,
            heads,
            normalization=normalization,
            maps=Maps(bias, std, output_std),
            key=key,
        )
        self.iterations = iterations

    def __call__(self, u: State, domain: TokenDomain) -> State:
        query, key, value = self.split_heads(self.projections(u))
        s = jnp.einsum("...xhd,...zhd->...hxz", query, key) / self.head_features**0.5
        shares = jnp.broadcast_to(domain.shares.astype(s.dtype), u.shape[:-1])
        # Of tokens that look, and of those that are looked at, for each head.
        rows, columns = shares[..., None, :, None], shares[..., None, None, :]

        def balanced(g: Array, _: None) -> tuple[Array, None]:
            f = -_log_sum(s, columns, g, -1)
            return -_log_sum(s, rows, f, -2), None

        g, _ = lax.scan(balanced, jnp.zeros_like(s[..., :1, :]), length=self.iterations)
        gamma = _kernel(s, columns, g, -1)
        mean = jnp.einsum("...hxz,...zhd->...xhd", gamma, value)
        return self.output(mean.reshape(u.shape))


def _scores(s: Array, shares: Array, g: Array) -> Array:
    return s + jnp.log(jnp.maximum(shares, jnp.finfo(s.dtype).tiny)) + g


# The logarithm of a weight that is 0 has no derivative, but what is made of it has.
@eqx.filter_custom_jvp
def _log_sum(s: Array, shares: Array, g: Array, axis: int) -> Array:
    """`log Σ w exp(s + g)`."""
    return jax.nn.logsumexp(_scores(s, shares, g), axis=axis, keepdims=True)


@_log_sum.def_jvp
def _log_sum_jvp(primals, tangents):
    rates = _rates(_kernel(*primals), primals, tangents)
    return _log_sum(*primals), jnp.sum(rates, axis=primals[-1], keepdims=True)


@eqx.filter_custom_jvp
def _kernel(s: Array, shares: Array, g: Array, axis: int) -> Array:
    """`w exp(s + g) / Σ w exp(s + g)`."""
    return jax.nn.softmax(_scores(s, shares, g), axis=axis)


@_kernel.def_jvp
def _kernel_jvp(primals, tangents):
    gamma = _kernel(*primals)
    rates = _rates(gamma, primals, tangents)
    return gamma, rates - gamma * jnp.sum(rates, axis=primals[-1], keepdims=True)


def _rates(
    gamma: Array, primals: tuple[Array, Array, Array, int], tangents: tuple[Array | None, ...]
) -> Array:
    """The derivative of the kernel before it is normalised again."""
    s, _, g, _ = primals
    s_rate, shares_rate, g_rate = (0 if x is None else x for x in tangents[:3])
    rates = gamma * (s_rate + g_rate)
    if tangents[1] is None:
        return rates
    # Padding may have any score, and an infinite rate times 0 would spread.
    most = math.log(jnp.finfo(s.dtype).max) / 2
    return rates + shares_rate * jnp.exp(jnp.minimum(s + g - _log_sum(*primals), most))
