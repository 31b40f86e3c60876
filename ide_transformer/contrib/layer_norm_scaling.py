"""Layer norms that shrink with depth."""

from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PyTree

from ide_transformer.arguments import checked
from ide_transformer.equation import (
    AbstractNormalization,
    AbstractWrappedOperator,
    Depth,
    RMSSphere,
    Sphere,
    State,
    TokenDomain,
)
from ide_transformer.errors import InputError


@checked
class LayerNormScaling(AbstractWrappedOperator):
    """An operator whose normalisation P, with gain and bias, shrinks with depth,

        du/dt = A(P(u) / sqrt(1 + t)),

    which for h = 1 is P / √l in layer l. Reference: Sun et al., arXiv 2502.05795.

    **Arguments:**

    - `operator`: an operator with `LayerNorm` or `RMSNorm` as its `normalization`.
    """

    def __check_init__(self):
        innermost = self.operator.innermost
        normalization = getattr(innermost, "normalization", None)
        # The gain and bias of a sphere are its units, which do not shrink.
        is_norm = isinstance(normalization, AbstractNormalization)
        if not is_norm or isinstance(normalization, Sphere | RMSSphere):
            raise InputError(
                f"LayerNormScaling: {type(innermost).__name__} has "
                f"normalization={normalization}; use an operator with LayerNorm or RMSNorm."
            )

    def at(self, t: Depth, args: PyTree) -> "LayerNormScaling":
        factor = 1 / jnp.sqrt(1 + jnp.asarray(t, jnp.result_type(float)))
        operator = eqx.tree_at(
            lambda x: x.innermost.normalization,
            self.operator.at(t, args),
            replace_fn=lambda normalization: normalization.times(factor),
        )
        return replace(self, operator=operator)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.operator(u, domain)
