"""The error made by leaving out a layer: predicted from the equation, and measured."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..analysis import Defects, equation_defects, scan_intervals
from ..equation import Equation, with_source
from ..models import AbstractModel
from ..solvers import single_step
from .layers import keep_layers
from .target import Quantity, native_target, read_outputs, square


def defects(model: AbstractModel, inputs: PyTree[ArrayLike]) -> Defects:
    """The defects of a model's native step in each interval, for a batch of inputs."""
    equation, u0 = initial_value_problem(model, inputs)
    return equation_defects(equation, u0, solver=model.solver)


@eqx.filter_jit
def removal_estimate(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Float[Array, " intervals"]:
    """The error made by leaving out interval l, to first order,

        |J_l δ_l| / |y|,   δ_l = Φ_l u_l - u_l,   J_l = ∂y / ∂u_{l+1}:

    the defect of the identity in the place of the step Φ_l. The linearised march over the later
    intervals carries it to y, what is read of the outputs (`read`: see `Target`). The march is
    linearised once; each interval then costs about as much as a solve, as in
    `removal_damage`. Reference for the transport of local errors: Hairer, Nørsett, Wanner,
    Solving Ordinary Differential Equations I, section II.3.
    """
    equation, u0 = initial_value_problem(model, inputs)
    length = equation.control.interval_length

    def march(perturbations):
        def visit(u, terms, start, perturbation):
            stepped = single_step(model.solver, terms, start, start + length, u)
            return stepped + perturbation, stepped - u

        u1, increments = scan_intervals(equation, visit, u0, perturbations, dtype=u0.dtype)
        return read_outputs(model, model.read_out(u1), inputs, read), increments

    number = equation.control.num_intervals
    zeros = jnp.zeros((number, *u0.shape), u0.dtype)
    y, transport, increments = jax.linearize(march, zeros, has_aux=True)

    def carried(interval):
        alone = zeros.at[interval].set(increments[interval])
        return square(transport(alone))

    return jnp.sqrt(jax.lax.map(carried, jnp.arange(number)) / square(y))


def removal_damage(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Float[np.ndarray, " intervals"]:
    """The error made by leaving out each interval, measured by a solve for each; for
    `read` see `Target`."""
    layers = range(model.control.num_intervals)
    error = native_target(model, inputs, read).error
    others = ([*layers[:layer], *layers[layer + 1 :]] for layer in layers)
    return np.array([float(error(keep_layers(model, kept))) for kept in others])


def initial_value_problem(
    model: AbstractModel, inputs: PyTree[ArrayLike]
) -> tuple[Equation, Float[Array, "*batch tokens features"]]:
    """The equation that a model solves for these inputs, and its initial state."""
    u0, domain = model.embed(inputs)
    return Equation(with_source(model.control, u0), model.constraint, domain), u0
