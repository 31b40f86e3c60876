import diffrax
import equinox as eqx
from jax import lax
from jaxtyping import Array, Float, PyTree

from ...equation import Equation
from ...solvers import unrolled
from ..check_state import check_state, check_steps
from ..march import plan_steps
from .coupled_steps import advance, coupled, relative_error


@eqx.filter_jit
def rebuilding_error(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int = 1,
    args: PyTree = None,
) -> Float[Array, " intervals"]:
    """The growth of rounding when a reversible scheme is undone: it marches to T and back,
    and compares at the beginning of each interval the rebuilt state with the true one. It
    gives the largest difference, relative to the largest entry. `Reversible` checks the first
    of them.

    **Arguments:** see `solve`.

    **Raises:** `InputError` for a scheme that cannot be undone.
    """
    check_state(equation, u0, args)
    check_steps(steps_per_interval)
    steps = plan_steps(equation, unrolled(solver), steps_per_interval, u0)
    makers, inputs = coupled(steps, u0, args)

    def forward(pair, x):
        weights, here = x

        def step(pair, here):
            return advance(makers, here._replace(weights=weights), pair)

        end, lost = lax.scan(step, pair, here)
        return end, (pair[0], lost)

    def back(pair, x):
        weights, here, (exact, lost) = x

        def step(pair, x):
            here, lost = x
            for maker, lost_here in zip(reversed(makers), reversed(lost), strict=True):
                pair = maker(here._replace(weights=weights)).backward(pair, lost_here)
            return pair, None

        pair, _ = lax.scan(step, pair, (here, lost), reverse=True)
        return pair, relative_error(pair[0], exact)

    xs = inputs.weights, inputs.without_weights
    pair, kept = lax.scan(forward, (u0, u0), xs)
    _, errors = lax.scan(back, pair, (*xs, kept), reverse=True)
    return errors
