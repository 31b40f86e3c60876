"""Speech as inputs: convolutions along the frames of a spectrogram."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ide_transformer.arguments import NonNegativeFloat, OddWidth, PositiveInt, checked
from ide_transformer.equation import TokenDomain, affine, check_features, gelu
from ide_transformer.errors import InputError
from ide_transformer.models import AbstractInputs, Embedded


@checked
class TokenConvolution(eqx.Module):
    """A convolution along the tokens,

        v(x) = Σ_k u(s x + k - r) W_k + b,   k = 0 … 2r,

    with u = 0 outside. Maps `[..., tokens, in]` to `[..., ceil(tokens / s), out]`.

    **Arguments:**

    - `features_in`, `features_out`: the numbers of features before and after.
    - `width`: `2r + 1`, in tokens.
    - `stride`: s.
    - `std`: the standard deviation of the initial W.
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
        width: OddWidth = 3,
        stride: PositiveInt = 1,
        std: NonNegativeFloat = 0.02,
    ):
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


@checked
class AudioInputs(AbstractInputs):
    """Embeds log-mel spectrograms `[..., mels, frames]` of speech by two convolutions along the
    frames. The second has stride 2, so there are half as many tokens. The positions are not
    trained, and the number of frames is fixed. Reference: Radford et al., arXiv 2212.04356."""

    first_convolution: TokenConvolution
    second_convolution: TokenConvolution
    positions: Float[Array, "tokens features"]

    @property
    def features(self) -> int:
        return self.positions.shape[1]

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(self.positions.shape[0])

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        spectrogram = jnp.asarray(inputs)
        mels = self.first_convolution.weight.shape[1]
        frames = self.second_convolution.stride * self.positions.shape[0]
        is_real = jnp.issubdtype(spectrogram.dtype, jnp.floating)
        if spectrogram.shape[-2:] != (mels, frames) or not is_real:
            raise InputError(
                f"AudioInputs: got {spectrogram.dtype}{spectrogram.shape}, expected a real "
                f"log-mel spectrogram [..., {mels}, {frames}]: {mels} mels, {frames} frames. "
                "Pad the recording with silence, or cut it."
            )
        spectrogram = spectrogram.astype(self.first_convolution.weight.dtype)
        u = gelu(self.first_convolution(jnp.swapaxes(spectrogram, -1, -2)))
        u = gelu(self.second_convolution(u))
        positions = lax.stop_gradient(self.positions)
        return Embedded(u + jnp.broadcast_to(positions, u.shape), self.domain)
