from typing import ClassVar

import jax

from ..domain import TokenDomain
from ..shapes import State
from .random_operator import AbstractRandomOperator


class LayerDrop(AbstractRandomOperator):
    """An operator that is left out of whole intervals at random:

        du/dt = m A(u),   m ~ Bernoulli(1-p), one draw for all tokens, features and samples.

    All operators of a block are left out together, so that a layer does nothing. A model that
    is trained so can be solved with some of its layers only. Without a key the operator is
    unchanged.

    Source: Fan, Grave, Joulin, "Reducing transformer depth on demand with structured dropout",
    2020, arXiv 1909.11556.

    **Arguments:**

    - `operator`: A.
    - `rate`: p in [0, 1).
    """

    one_draw: ClassVar[bool] = True

    def __call__(self, u: State, domain: TokenDomain) -> State:
        rate = self.operator(u, domain)
        if self.key is None:
            return rate
        return rate * jax.random.bernoulli(self.key, 1.0 - self.rate).astype(rate.dtype)
