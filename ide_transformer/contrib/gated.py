"""A Runge–Kutta method with a learned gate between its stages."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.solvers import AbstractOneStep, StepField


@checked
class GatedRK2(AbstractOneStep):
    """Heun's method with a learned gate between its two stages; for each token

        u_{n+1} = u_n + h (g F_1 + (1 - g) F_2),   g = sigmoid(w·[F_1, F_2] + b),
        F_1 = F(t_n, u_n),   F_2 = F(t_n + h, u_n + h F_1).

    Initially w = 0 and b = 0, which is Heun's method; any other gate has order one.
    `Residual(GatedRK2(features))` is a block of the ODE Transformer, with one gate for all
    layers. Reference: Li et al., arXiv 2203.09176.
    """

    weight: Float[Array, " twice_features"]
    bias: Float[Array, ""]

    fixed_order: ClassVar[int | None] = 1

    def __init__(self, features: PositiveInt):
        self.weight = jnp.zeros(2 * features)
        self.bias = jnp.zeros(())

    def advance(self, field: StepField, u: Array) -> Array:
        first = field(0, u)
        second = field(1, u + first)
        # The gate sees the fields, not the increments, which shrink with the step.
        fields = jnp.concatenate([first, second], axis=-1) / field.h
        gate = jax.nn.sigmoid(fields @ self.weight + self.bias)[..., None]
        gate = jnp.broadcast_to(gate, u.shape).astype(u.dtype)
        return u + gate * first + (1 - gate) * second
