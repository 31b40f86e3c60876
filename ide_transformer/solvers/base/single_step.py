import diffrax
from jaxtyping import Array, Float, PyTree

from ...equation import Depth


def single_step(
    solver: diffrax.AbstractSolver,
    terms: PyTree[diffrax.AbstractTerm],
    t0: Depth,
    t1: Depth,
    u: Float[Array, "*batch tokens features"],
    args: PyTree = None,
) -> Float[Array, "*batch tokens features"]:
    """The state after one step of `solver` from t0 to t1, started afresh: a scheme that
    carries something from step to step has nothing yet."""
    state = solver.init(terms, t0, t1, u, args)
    return solver.step(terms, t0, t1, u, args, state, True)[0]
