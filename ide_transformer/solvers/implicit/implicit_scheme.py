import jax.numpy as jnp
from jaxtyping import Array

from ..base.evaluation_count import EvaluationCount
from ..base.scheme import AbstractFieldScheme
from ..base.step import StepField


class AbstractImplicitScheme(AbstractFieldScheme):
    """A scheme that solves equations in each step; it carries the count of its evaluations."""

    def start(self, field: StepField, u: Array) -> EvaluationCount:
        return EvaluationCount(jnp.zeros((), u.dtype))
