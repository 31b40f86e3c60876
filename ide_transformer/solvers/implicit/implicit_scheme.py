import diffrax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ...equation import Depth
from ..base.evaluation_count import EvaluationCount
from ..base.scheme import AbstractScheme


class AbstractImplicitScheme(AbstractScheme):
    """A scheme whose state is the count of its evaluations."""

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: Array,
        args: PyTree,
    ) -> EvaluationCount:
        return EvaluationCount(jnp.zeros((), y0.dtype))
