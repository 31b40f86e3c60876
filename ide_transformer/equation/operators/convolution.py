from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray
from pydantic import Field

from ...arguments import NonNegativeFloat, PositiveInt
from ...errors import InputError
from ..arrays import State, affine
from ..constraints import AbstractConstraint, Free
from ..domain import TokenDomain
from .grid import check_axes, goes_around, on_grid
from .operator import AbstractOperator, check_features


class Convolution(AbstractOperator):
    """A convolution over the tokens of a grid, an integral over a neighbourhood of each:

        du/dt = Σ_k N(u)(x + k) W_k + b,   |k| ≤ r along each axis,

    with u = 0 beyond a boundary, and around a periodic domain. Causal, of a text, it takes the
    token and the `width - 1` before it.

    **Arguments:**

    - `features`: width of the state.
    - `width`: tokens along each axis; `2 r + 1`, odd, unless it is causal.
    - `dimension`: of the tokens, 1 to 3.
    - `depthwise`: whether each feature has its own W_k, a number.
    - `causal`: whether it looks back only.
    - `normalization`: N, applied to the input.
    - `bias`: whether there is b.
    - `std`: standard deviation of the initial W.

    **Raises:** `InputError` for an even width that is not causal, a causal one over a plane,
    and on a domain that is no grid, or has weights.
    """

    weight: Float[Array, "..."]
    bias: Float[Array, " features"] | None
    normalization: AbstractConstraint
    causal: bool = eqx.field(static=True)

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        width: PositiveInt = 3,
        dimension: Annotated[int, Field(ge=1, le=3)] = 1,
        depthwise: bool = False,
        causal: bool = False,
        normalization: AbstractConstraint = Free(),
        bias: bool = True,
        std: NonNegativeFloat = 0.02,
    ):
        if not causal and width % 2 == 0:
            raise InputError(
                f"Convolution(width={width}) has no token in its middle; choose an odd width."
            )
        if causal and dimension > 1:
            raise InputError(
                f"Convolution: causal=True in {dimension} dimensions; points of a plane have "
                "no order."
            )
        shape = (*(width,) * dimension, 1 if depthwise else features, features)
        self.weight = std * jax.random.normal(key, shape)
        self.bias = jnp.zeros(features) if bias else None
        self.normalization = normalization
        self.causal = causal

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, self.weight.shape[-1])
        check_axes(self, self.weight.ndim - 2, domain)
        v = on_grid(self, self.normalization.project(u), domain)
        width, axes = self.weight.shape[0], domain.dimension
        reach = (width - 1, 0) if self.causal else (width // 2, width // 2)
        v = v.reshape(-1, *v.shape[-1 - axes :])
        mode = "wrap" if goes_around("Convolution", domain) else "constant"
        v = jnp.pad(v, [(0, 0), *[reach] * axes, (0, 0)], mode=mode)
        grid = "DHW"[-axes:]
        v = lax.conv_general_dilated(
            v,
            self.weight.astype(u.dtype),
            (1,) * axes,
            "VALID",
            dimension_numbers=(f"N{grid}C", f"{grid}IO", f"N{grid}C"),
            feature_group_count=v.shape[-1] // self.weight.shape[-2],
        )
        return affine(v.reshape(u.shape), None, self.bias)
