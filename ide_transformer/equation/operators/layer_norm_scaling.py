from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import PyTree

from ...errors import InputError
from ..constraints.normalization import AbstractNormalization, AbstractSphere
from ..domain import TokenDomain
from ..shapes import Depth, State
from .operator import AbstractOperator, AbstractWrappedOperator


class LayerNormScaling(AbstractWrappedOperator):
    """An operator whose normalisation shrinks with depth,

        du/dt = A(P(u) / sqrt(1 + t)),

    P its normalisation with gain and bias. Layers of length 1 that are solved by Euler's
    method see t = l - 1, so P / √l in layer l. Where A is linear in P(u) this is a step of
    length 1/√l. Reference: Sun et al., The Curse of Depth, arXiv 2502.05795.

    **Arguments:**

    - `operator`: one with the `normalization` `LayerNorm` or `RMSNorm`, such as `Attention`
      and `FeedForward`.

    **Raises:** `InputError` for another operator.
    """

    operator: AbstractOperator

    def __check_init__(self):
        innermost = self.operator.innermost
        normalization = getattr(innermost, "normalization", None)
        # A sphere measures its input in units of gain and bias, which are not to change.
        if not isinstance(normalization, AbstractNormalization) or isinstance(
            normalization, AbstractSphere
        ):
            raise InputError(
                f"LayerNormScaling: {type(innermost).__name__} has "
                f"normalization={normalization}; give an operator with LayerNorm or RMSNorm."
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
