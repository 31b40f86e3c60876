from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array

from ..errors import InputError
from ..integration import relative_difference
from ..models import Field
from .losses import AbstractLoss, Mean


class RelativeError(AbstractLoss):
    """The relative error of functions, `‖output - target‖₂ / ‖target‖₂`, the norm over all
    points and channels of a sample, the mean over samples.

    `outputs` and `targets: [samples, tokens, ...]` have one shape. Where the targets are a
    `Field`, the squares at each point count with its weight, as those of a norm of functions:
    `‖v‖² ≈ Σ_j w_j |v(x_j)|²`.

    **Raises:** `InputError` where they have not.
    """

    label: ClassVar[str] = "relative error"

    @property
    def difference(self) -> Callable[[Array, Array], Array]:
        return relative_difference

    def measure(self, outputs: Array, targets: Array | Field) -> dict[str, Mean]:
        values = targets.values if isinstance(targets, Field) else targets
        if outputs.shape != values.shape:
            raise InputError(
                f"the model gives outputs of shape {outputs.shape}, and the targets have "
                f"{values.shape}; a relative error needs one value for each target."
            )
        factors = jnp.ones(())
        if isinstance(targets, Field) and targets.domain.weights is not None:
            shares = jnp.sqrt(targets.domain.shares).astype(outputs.dtype)
            factors = shares.reshape(*shares.shape, *(1,) * (outputs.ndim - 2))

        def norms(x):
            weighted = (x * jnp.broadcast_to(factors, x.shape)).reshape(len(x), -1)
            return optax.safe_norm(weighted, 0.0, axis=1)

        errors = norms(outputs - values) / norms(values)
        return {"loss": Mean(jnp.sum(errors), len(values))}
