from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ...arguments import PositiveInt
from ...equation import RMSNorm
from ..base.scheme import AbstractFieldScheme, operator_terms
from ..base.step import Step, StepField
from .past import AbstractConnected, Past


class AttentionResidual(AbstractConnected, AbstractFieldScheme):
    """Attention over depth in the place of the sum of all increments: for each operator in turn

        v_i = h A_i(u_i),   u_{i+1} = Σ_{j≤i} α_j v_j,   v_0 = u_0,
        α = softmax_j(q_i · v_j / rms(v_j)) for each token,

    i counts the operators of all steps. The queries q_i are learned and start at zero, which
    takes the mean of all v_j. Learned queries belong to their step: there is no limit of small
    steps. Reference: Attention Residuals, arXiv 2603.15031, the form with all layers.

    **Arguments:**

    - `num_steps`: steps of a solve; it cannot make more.
    - `operators`: how many the equation has.
    - `features`: width of the state.
    """

    queries: Float[Array, "steps operators features"]

    term_structure: ClassVar = diffrax.MultiTerm

    def __init__(self, num_steps: PositiveInt, operators: PositiveInt, features: PositiveInt):
        self.queries = jnp.zeros((num_steps, operators, features))

    @property
    def num_steps(self) -> int:
        """The steps for which it has queries."""
        return self.queries.shape[0]

    def start(self, field: StepField, u: Array) -> Past:
        steps, operators, _ = self.queries.shape
        return Past.of(u, 1 + steps * operators)

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        terms = operator_terms(self, field.terms)
        queries = self.queries.reshape(-1, self.queries.shape[-1]).astype(u.dtype)
        past, ahead = state, u
        for term in terms:
            past = past.plus(field.with_terms(term)(0, ahead))
            # The first query is that of the second value.
            ahead = _attended(past, queries[past.number - 2])
        return Step.between(u, ahead, state=past)


def _attended(past: Past, query: Float[Array, " features"]) -> Array:
    """The mean of the past, weighted for each token."""
    scores = RMSNorm(eps=1e-6).project(past.values) @ query
    known = past.known.reshape(-1, *(1,) * (scores.ndim - 1))
    weights = jax.nn.softmax(jnp.where(known, scores, -jnp.inf), axis=0)
    return jnp.sum(weights[..., None] * past.values, axis=0)
