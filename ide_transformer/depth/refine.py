"""The same weights with more field evaluations: nearer to the solution of the equation."""

from jaxtyping import Array, ArrayLike, Float, PyTree

from ..errors import InputError
from ..models import AbstractModel


def refine(model: AbstractModel, k: int) -> AbstractModel:
    """The same model with k steps of h = 1/k in each interval.

    As k grows it tends to the solution of its equation where that has a limit: without a
    constraint, and on one `Sphere` or `RMSSphere` for all operators. Post-norm checkpoints
    have none. Their `LayerNorm`, with a gain that varies over features, is applied k times in
    an interval and multiplies that many gains; and one for each operator moves the state to
    and fro between two sets, k times as well. Such a model is refined as it is, and does not
    settle. What has a limit is the equation on one `Sphere`, another model at k = 1.
    """
    return model.with_solver(model.solver, steps_per_interval=k)


def richardson(model: AbstractModel, k: int, inputs: PyTree[ArrayLike]) -> PyTree[Array]:
    """The outputs read from the state extrapolated from k and 2k steps in each interval,

        u = u_{2k} + (u_{2k} - u_k) / (2^p - 1),

    p the order of the scheme: an error of order p + 1 where the error of the scheme has an
    expansion in h. Costs 3k steps in each interval. Reference: Richardson, Phil. Trans. A 226
    (1927); Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, section II.9.

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
    """The state of `richardson` from those of k and of 2k steps in each interval."""
    order = model.solver.order(model.equation.terms)
    if not order:
        raise InputError(
            f"richardson: the order of {type(model.solver).__name__} is not known, so its "
            "error cannot be extrapolated; take a scheme with an order, such as "
            "LieTrotter(Euler())."
        )
    return fine + (fine - coarse) / (2**order - 1)
