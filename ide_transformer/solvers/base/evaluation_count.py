"""Field evaluations counted while a solve runs."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree


class EvaluationCount(eqx.Module):
    """Field evaluations made so far by a scheme whose number is known only when it runs,
    kept in its solver state. A product with the Jacobian counts as one."""

    count: Float[Array, ""]

    def plus(self, number: Float[Array, ""] | float) -> "EvaluationCount":
        """The count after that many more evaluations."""
        return EvaluationCount(self.count + number)


def evaluations_made(solver_state: PyTree) -> EvaluationCount | None:
    """The count inside the state of a solver; `None` where the cost of a step is fixed."""

    def is_count(x):
        return isinstance(x, EvaluationCount)

    counts = filter(is_count, jax.tree.leaves(solver_state, is_leaf=is_count))
    return next(counts, None)
