"""The error made by leaving out a layer: predicted from the equation, and measured."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..equation import Equation
from ..errors import InputError
from ..models import AbstractModel
from ..solvers import unrolled
from .layers import keep_layers
from .step_defects import (
    Defects,
    equation_defects,
    over_interval,
    refuse_memory,
    scan_intervals,
    step_ends,
)
from .target import Quantity, native_target, read_outputs, square


def defects(model: AbstractModel, inputs: PyTree[ArrayLike]) -> Defects:
    """The defects of a model's native steps in each interval, for a batch of inputs.

    **Raises:** `InputError` for adaptive steps, and for a scheme that carries something from
    interval to interval.
    """
    steps = _equal_steps("defects", model)
    equation, u0 = initial_value_problem(model, inputs)
    return equation_defects(equation, u0, solver=model.solver, steps_per_interval=steps)


@eqx.filter_jit
def removal_estimate(
    model: AbstractModel, inputs: PyTree[ArrayLike], read: Quantity | None = None
) -> Float[Array, " intervals"]:
    """The error made by leaving out interval l, to first order,

        |J_l δ_l| / |y|,   δ_l = Φ_l u_l - u_l,   J_l = ∂y / ∂u_{l+1}:

    the defect of the identity in the place of Φ_l, the native steps in interval l. The
    linearised march over the later intervals carries it to y, what is read of the outputs
    (`read`: see `Target`). The march is linearised once; each interval then costs about as
    much as a solve, as in `removal_damage`. Reference for the transport of local errors:
    Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, section II.3.

    **Raises:** `InputError` for adaptive steps, and for a scheme that carries something from
    interval to interval.
    """
    steps = _equal_steps("removal_estimate", model)
    equation, u0 = initial_value_problem(model, inputs)
    refuse_memory("removal_estimate", equation, model.discretization.solver, u0)
    # The loop of diffrax over the stages of a Runge–Kutta method has no forward mode.
    solver = unrolled(model.solver)

    def march(perturbations):
        def visit(u, terms, start, perturbation):
            ends = step_ends(equation, start, steps)
            stepped = over_interval(solver, terms, ends, u)
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


def _equal_steps(name: str, model: AbstractModel) -> int:
    """The number of equal steps that a model makes in each interval; `name` is of the caller.

    **Raises:** `InputError` for adaptive ones.
    """
    if model.discretization.stepsize_controller is not None:
        raise InputError(
            f"{name}: the model has adaptive steps, which are not the same for other states; "
            "give it equal ones by with_solver(…, steps_per_interval=…)."
        )
    return model.discretization.steps_per_interval


def initial_value_problem(
    model: AbstractModel, inputs: PyTree[ArrayLike]
) -> tuple[Equation, Float[Array, "*batch tokens features"]]:
    """The equation that a model solves for these inputs, and its initial state."""
    u0, domain = model.embed(inputs)
    control = model.with_sources(model.control, u0, inputs)
    return Equation(control, model.constraint, domain), u0
