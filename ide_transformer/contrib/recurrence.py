"""A gated recurrence over tokens."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ide_transformer.arguments import NonNegativeFloat, PositiveInt, checked
from ide_transformer.equation import (
    AbstractConstraint,
    AbstractOperator,
    Free,
    State,
    TokenDomain,
    affine,
    check_axes,
    check_features,
    on_grid,
    product,
)


@checked
class GatedRecurrence(AbstractOperator):
    """A gated recurrent unit from the first token to the last,

        du/dt (x) = s_x,   s_x = s_{x-1} + (1 - z) ⊙ (c - s_{x-1}),   s_0 = 0,
        r, z = σ(W N(u)(x) + U s_{x-1} + b),   c = tanh(W_c N(u)(x) + r ⊙ (U_c s_{x-1}) + b_c),

    a step of Euler's method along the tokens. Source: Cho et al., arXiv 1406.1078, with the
    reset after the product.

    **Arguments:**

    - `features`: the features of the state.
    - `normalization`: N.
    - `std`: the standard deviation of the initial W and U.

    **Raises:** `InputError` if the domain is not a line of equally spaced points, or has
    weights.
    """

    weight: Float[Array, "features three_features"]
    memory: Float[Array, "features three_features"]
    bias: Float[Array, " three_features"]
    normalization: AbstractConstraint

    causal: ClassVar[bool] = True

    def __init__(
        self,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint = Free(),
        std: NonNegativeFloat = 0.02,
    ):
        first, second = jax.random.split(key)
        self.weight = std * jax.random.normal(first, (features, 3 * features))
        self.memory = std * jax.random.normal(second, (features, 3 * features))
        self.bias = jnp.zeros(3 * features)
        self.normalization = normalization

    def __call__(self, u: State, domain: TokenDomain) -> State:
        check_features(self, u, len(self.weight))
        check_axes(self, 1, domain)
        v = on_grid(self, self.normalization.project(u), domain)

        def step(s, inputs):
            input_r, input_z, input_c = jnp.split(inputs, 3, axis=-1)
            memory_r, memory_z, memory_c = jnp.split(product(s, self.memory), 3, axis=-1)
            r = jax.nn.sigmoid(input_r + memory_r)
            z = jax.nn.sigmoid(input_z + memory_z)
            s = s + (1 - z) * (jnp.tanh(input_c + r * memory_c) - s)
            return s, s

        inputs = jnp.moveaxis(affine(product(v, self.weight), None, self.bias), -2, 0)
        _, states = lax.scan(step, jnp.zeros_like(v[..., 0, :]), inputs)
        return jnp.moveaxis(states, 0, -2)
