"""What leaving out a layer does to the outputs: foretold from the equation, and measured."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..analysis import Defects, equation_defects, scan_intervals
from ..models import AbstractModel
from ..solvers import single_step
from .layers import keep_layers
from .target import Read, embedded, quantity, reference, square


def defects(model: AbstractModel, inputs: PyTree[ArrayLike]) -> Defects:
    """The defects of a model's native step in each interval, for a batch of inputs."""
    equation, u0 = embedded(model, inputs)
    return equation_defects(equation, u0, solver=model.solver)


@eqx.filter_jit
def removal_estimate(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Read | None = None
) -> Float[Array, " intervals"]:
    """The error made by leaving out interval l, to first order,

        |J_l δ_l| / |y|,   δ_l = Φ_l u_l - u_l,   J_l = ∂y / ∂u_{l+1}:

    the defect of the identity in the place of the step Φ_l, carried to what is read of the
    outputs, y, by the linearised march behind it; `read` as of `Reference`. Reference for the
    transport of local errors: Hairer, Nørsett, Wanner, Solving Ordinary Differential
    Equations I, section II.3. The march is linearised once; each interval then costs about
    as much as a solve, as does `removal_damage`.
    """
    equation, u0 = embedded(model, inputs)
    length = equation.control.interval_length

    def march(perturbations):
        def visit(u, terms, start, perturbation):
            stepped = single_step(model.solver, terms, start, start + length, u)
            return stepped + perturbation, stepped - u

        u1, increments = scan_intervals(equation, visit, u0, perturbations, dtype=u0.dtype)
        return quantity(model, model.read_out(u1), inputs, read), increments

    number = equation.control.num_intervals
    zeros = jnp.zeros((number, *u0.shape), u0.dtype)
    y, transport, increments = jax.linearize(march, zeros, has_aux=True)

    def carried(interval):
        alone = zeros.at[interval].set(increments[interval])
        return square(transport(alone))

    return jnp.sqrt(jax.lax.map(carried, jnp.arange(number)) / square(y))


def removal_damage(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Read | None = None
) -> Float[np.ndarray, " intervals"]:
    """The error made by leaving out each interval, measured by a solve for each; `read` as of
    `Reference`."""
    layers = range(model.control.num_intervals)
    error = reference(model, inputs, read).error
    others = ([*layers[:layer], *layers[layer + 1 :]] for layer in layers)
    return np.array([float(error(keep_layers(model, kept))) for kept in others])
