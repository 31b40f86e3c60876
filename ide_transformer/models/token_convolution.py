import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..arguments import NonNegativeFloat, PositiveInt
from ..equation import affine, check_features
from ..errors import InputError


class TokenConvolution(eqx.Module):
    """A convolution along the tokens, an integral over a neighbourhood of each:

        v(x) = Σ_k u(s x + k - r) W_k + b,   k = 0 … 2r,

    with u = 0 outside of its tokens: `[..., tokens, in]` to `[..., ceil(tokens / s), out]`.

    **Arguments:**

    - `features_in`, `features_out`: widths.
    - `width`: `2r + 1`, odd, in tokens.
    - `stride`: s.
    - `std`: standard deviation of the initial W.

    **Raises:** `InputError` for an even width, which has no middle.
    """

    weight: Float[Array, "width in out"]
    bias: Float[Array, " out"]
    stride: int = eqx.field(static=True)

    def __init__(
        self,
        features_in: PositiveInt,
        features_out: PositiveInt,
        *,
        key: PRNGKeyArray,
        width: PositiveInt = 3,
        stride: PositiveInt = 1,
        std: NonNegativeFloat = 0.02,
    ):
        if width % 2 == 0:
            raise InputError(
                f"TokenConvolution(width={width}) has no token in its middle; choose an odd "
                "width."
            )
        self.weight = std * jax.random.normal(key, (width, features_in, features_out))
        self.bias = jnp.zeros(features_out)
        self.stride = stride

    def __call__(self, u: Float[Array, "*batch tokens in"]) -> Float[Array, "*batch new out"]:
        check_features(self, u, self.weight.shape[1])
        reach = self.weight.shape[0] // 2
        v = lax.conv_general_dilated(
            u.reshape(-1, *u.shape[-2:]),
            self.weight,
            (self.stride,),
            [(reach, reach)],
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return affine(v.reshape(*u.shape[:-2], *v.shape[-2:]), None, self.bias)
