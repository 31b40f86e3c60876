from dataclasses import KW_ONLY

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    LayerNorm,
    TokenDomain,
    as_control,
    gelu,
)
from ..errors import InputError
from .encoder_parts import any_constraint
from .model import Discretization, Model
from .token_convolution import TokenConvolution


class SpeechEncoder(Model):
    """An encoder of speech: two convolutions along the frames of a log-mel spectrogram,
    positions that are not trained, the equation, the states.

    `model(features)` maps `features: [..., mels, frames]`, as feature extractors give them,
    to the states at depth T, `[..., tokens, features]`, with `tokens = frames / 2`. The
    number of frames is fixed: a shorter recording is filled up with silence before the
    spectrogram is computed. Reference: Radford et al., arXiv 2212.04356.

    **Arguments:**

    - `first_convolution`: the convolution from mels to features, of stride 1.
    - `second_convolution`: the convolution of stride 2.
    - `positions`: `[tokens, features]`, added after the convolutions.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `output_normalization`: applied to the states at depth T.
    """

    first_convolution: TokenConvolution
    second_convolution: TokenConvolution
    positions: Float[Array, "tokens features"]
    _: KW_ONLY
    control: AbstractControl
    constraint: AbstractControl = eqx.field(converter=any_constraint)
    output_normalization: AbstractConstraint = LayerNorm()
    discretization: Discretization

    def __post_init__(self):
        self.constraint = as_control(self.constraint, self.control)

    @property
    def features(self) -> int:
        return self.positions.shape[1]

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(self.positions.shape[0])

    def embed(
        self, inputs: Float[ArrayLike, "*batch mels frames"], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        features = jnp.asarray(inputs, self.first_convolution.weight.dtype)
        self._check(features)
        u = gelu(self.first_convolution(jnp.swapaxes(features, -1, -2)))
        u = gelu(self.second_convolution(u))
        positions = lax.stop_gradient(self.positions)
        return u + jnp.broadcast_to(positions, u.shape), self.domain

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens features"]:
        return self.output_normalization.project(u)

    def _check(self, features: Array) -> None:
        mels = self.first_convolution.weight.shape[1]
        frames = self.second_convolution.stride * self.positions.shape[0]
        if features.shape[-2:] != (mels, frames):
            raise InputError(
                f"SpeechEncoder: a log-mel spectrogram of shape {features.shape}, but the "
                f"model was built for [..., {mels}, {frames}]: {mels} mels, {frames} frames. "
                "Fill the recording up with silence or cut it, and use the feature extractor "
                "that belongs to the model."
            )
