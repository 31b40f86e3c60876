"""Inputs that solve another equation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from ..arguments import checked
from ..equation import TokenDomain
from ..errors import InputError
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import Embedded
from .read_outs import States


@checked
class StageInputs(AbstractImageInputs):
    """Windows of the final states of another equation,

        u_i' = Σ_j A_ij(u_i; θ_i(t)) on Ω_i,   u_i(0) = E_i(u_{i-1}(T_{i-1})).

    The states are an image whose channels are the features. E_i embeds it on a coarser grid
    with more features (convolutional vision Transformer: Wu et al., arXiv 2103.15808).

    **Arguments:** `before`, the model of the previous stage, with the read-out `States()`, and
    `windows`, E_i, for images with the grid and features of `before`.
    """

    before: Model[AbstractImageInputs, States]
    windows: ImageInputs
    image_shape: tuple[int, int, int] = eqx.field(static=True, init=False)

    def __post_init__(self):
        self.image_shape = self.before.inputs.image_shape

    def __check_init__(self):
        before = self.before
        image_shape = (*before.inputs.grid, before.features)
        if before.inputs.prefix_tokens or self.windows.image_shape != image_shape:
            raise InputError(
                f"StageInputs: image_shape={self.windows.image_shape}; build the stage with "
                f"image_shape={image_shape}, and only the last stage with a class_token."
            )

    @property
    def features(self) -> int:
        return self.windows.features

    @property
    def domain(self) -> TokenDomain:
        return self.windows.domain

    @property
    def prefix_tokens(self) -> int:
        return self.windows.prefix_tokens

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        before = self.before
        return self.windows.grid_of((*before.inputs.grid_of(shape), before.features))

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        before_key, windows_key = (None, None) if key is None else jax.random.split(key)
        solution = self.before.solve(inputs, key=before_key)
        states = self.before.outputs(solution.u1)
        grid = self.before.inputs.grid_of(jnp.shape(inputs))
        image = states.reshape(*states.shape[:-2], *grid, states.shape[-1])
        return self.windows.embed(image, key=windows_key)._replace(before=(solution,))
