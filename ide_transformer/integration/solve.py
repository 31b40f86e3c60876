import diffrax
from jaxtyping import Array, Float, PyTree

from ..equation import Equation
from .discretization import Discretization
from .gradients.gradient import AbstractGradient
from .gradients.recompute import Recompute
from .solution import Solution


def solve(
    equation: Equation,
    u0: Float[Array, "*batch tokens features"],
    *,
    solver: diffrax.AbstractSolver,
    steps_per_interval: int = 1,
    stepsize_controller: diffrax.AbstractStepSizeController | None = None,
    gradient: AbstractGradient | diffrax.AbstractAdjoint = Recompute(),
    saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    args: PyTree = None,
    max_steps: int = 256,
    throw: bool = True,
) -> Solution:
    """Solves `u_t = F(t, u)`, `u(0) = u0`, from depth 0 to T.

    Every stage of every step reads the weights of the interval in which the step is made,
    so schemes keep their order on layered weights too. `diffrax.diffeqsolve` on
    `equation.terms` gives the same answer where the control is continuous in depth; on
    `PiecewiseConstant`, called by hand, schemes with a stage at the end of the step (Heun,
    Tsit5) read the next layer there and do not.

    **Arguments:**

    - `equation`: see `Equation`.
    - `u0`: `[..., tokens, features]`. Leading axes share one sequence of steps; under
      `jax.vmap` each sample has its own.
    - `solver`: any `diffrax.AbstractSolver`. The implicit ones of diffrax solve their stages
      by Newton–Krylov, without a Jacobian matrix.
    - `steps_per_interval`: equal steps in each interval; 1 is a step per layer.
    - `stepsize_controller`: choose the steps by an error estimate instead, for example
      `diffrax.PIDController(rtol=1e-3, atol=1e-6)`. No step crosses the boundary
      of an interval, and padded tokens do not enter its error norm.
    - `gradient`: decides which values are kept for the gradient: `Recompute()`,
      `Recursive()`, `Direct()`, or for reversible schemes `Reversible()`; for adaptive steps
      also an adjoint of diffrax.
    - `saveat`: a `diffrax.SaveAt` with any of `t0`, `t1`, `ts` and `dense`. The states of
      all layers are `SaveAt(ts=equation.knots)`.
    - `args`: handed to the vector field.
    - `max_steps`: the most steps that an adaptive solve may take in one interval.
    - `throw`: raise if the solve fails. Pass `False` inside a training step, where raising
      would make the device wait for the host, and look at `Solution.result`.

    **Raises:** `InputError` for arguments that do not fit; an error that names the failure
    and its depth if the solve fails and `throw` is true.
    """
    discretization = Discretization(
        solver, steps_per_interval, stepsize_controller, gradient, max_steps
    )
    return discretization.solve(equation, u0, saveat=saveat, args=args, throw=throw)
