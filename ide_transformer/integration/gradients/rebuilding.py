import diffrax
import equinox as eqx
from jax import lax
from jaxtyping import Array, Float, PyTree

from ...equation import Equation
from ...solvers import unrolled
from ..checks import check_reversible, check_state, check_steps
from ..march import reversible_couplings, steps_of
from .reversible import advance, makers_of, relative_error, reversible_inputs, step_inputs


@eqx.filter_jit
def rebuilding_error(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int = 1,
    args: PyTree = None,
) -> Float[Array, " intervals"]:
    """How rounding grows when a reversible scheme is undone: the march to T and back, and at
    the beginning of each interval the largest difference between the state rebuilt there and
    the one on the way there, relative to the largest entry of the latter. `Reversible` checks
    the first of them.

    **Arguments:** as of `solve`.
    """
    check_state(equation, u0, args)
    check_steps(steps_per_interval)
    solver = unrolled(solver)
    grid = steps_of(equation, u0, solver, steps_per_interval)
    couplings = check_reversible(equation, solver, dense=False)
    inputs = reversible_inputs(grid.equation, grid.offsets)
    makers = makers_of(
        reversible_couplings(grid, couplings, args), step_inputs(inputs, 0, 0), u0
    )

    def forth(pair, x):
        weights, steps = x

        def step(pair, here):
            return advance(makers, here._replace(weights=weights), pair)

        end, lost = lax.scan(step, pair, steps)
        return end, (pair[0], lost)

    def back(pair, x):
        weights, steps, (exact, lost) = x

        def step(pair, x):
            here, lost = x
            for maker, lost_here in zip(reversed(makers), reversed(lost), strict=True):
                pair = maker(here._replace(weights=weights)).backward(pair, lost_here)
            return pair, None

        pair, _ = lax.scan(step, pair, (steps, lost), reverse=True)
        return pair, relative_error(pair[0], exact)

    steps = inputs._replace(weights=None)
    pair, there = lax.scan(forth, (u0, u0), (inputs.weights, steps))
    _, errors = lax.scan(back, pair, (inputs.weights, steps, there), reverse=True)
    return errors
