from jaxtyping import Array, ArrayLike, Float, PyTree

from ..errors import InputError
from ..models import AbstractModel


def refine(model: AbstractModel, k: int) -> AbstractModel:
    """Refine a model to k steps of h = 1/k in each interval.

    As k grows the outputs tend to those of the solution of the equation, where that has a
    limit: without a constraint, and on one `Sphere` or `RMSSphere` for all operators. Post-norm
    checkpoints have no limit. A `LayerNorm` whose gain varies over features multiplies k such
    gains in an interval, and one for each operator moves the state back and forth between two
    sets k times. Such a model is refined unchanged and does not settle. The equation on one
    `Sphere` has a limit, but is another model at k = 1.
    """
    return model.with_solver(model.solver, steps_per_interval=k)


def richardson(model: AbstractModel, k: int, inputs: PyTree[ArrayLike]) -> PyTree[Array]:
    """The outputs read from the state extrapolated from k and 2k steps in each interval,

        u = u_{2k} + (u_{2k} - u_k) / (2^p - 1),

    p the order of the scheme. The error is of order p + 1 where that of the scheme has an
    expansion in h. It costs 3k steps in each interval. Reference: Richardson, Phil. Trans. A
    226 (1927); Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, section
    II.9.

    **Raises:** `InputError` for a scheme whose order is not known.
    """
    coarse = refine(model, k).solve(inputs).u1
    fine = refine(model, 2 * k).solve(inputs).u1
    return model.read_out(extrapolated(model, coarse, fine))


def extrapolated(
    model: AbstractModel,
    coarse: Float[Array, "*batch tokens features"],
    fine: Float[Array, "*batch tokens features"],
) -> Float[Array, "*batch tokens features"]:
    """The state of `richardson`, from the states with k and with 2k steps in each interval."""
    order = model.solver.order(model.equation.terms)
    if not order:
        raise InputError(
            f"richardson: the order of {type(model.solver).__name__} is not known, so its "
            "error cannot be extrapolated; take a scheme with an order, such as "
            "LieTrotter(Euler())."
        )
    return fine + (fine - coarse) / (2**order - 1)
