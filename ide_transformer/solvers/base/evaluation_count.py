"""Field evaluations counted while a solve runs."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree


class EvaluationCount(eqx.Module):
    """Field evaluations made so far by a scheme whose number is known only when it runs,
    kept in its solver state. A product with the Jacobian counts as one."""

    count: Float[Array, ""]


def evaluations_made(solver_state: PyTree) -> EvaluationCount | None:
    """The count inside the state of a solver; `None` where the cost of a step is fixed."""
    leaves = jax.tree.leaves(solver_state, is_leaf=lambda x: isinstance(x, EvaluationCount))
    counts = [leaf for leaf in leaves if isinstance(leaf, EvaluationCount)]
    return counts[0] if counts else None
