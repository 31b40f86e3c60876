import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..equation import Equation, operator_fields, without_constraint
from ..errors import InputError


def check_state(equation: Equation, u0: Array, args: PyTree) -> None:
    """Refuses an initial state or an operator whose shape does not fit the equation."""
    tokens = equation.domain.num_tokens
    if u0.ndim < 2 or u0.shape[-2] != tokens:
        raise InputError(
            f"solve: u0 has shape {u0.shape}; the equation's domain has {tokens} tokens, so "
            f"it must be [..., {tokens}, features]."
        )
    if not jnp.issubdtype(u0.dtype, jnp.floating):
        raise InputError(f"solve: u0 has dtype {u0.dtype}; the state must be floating point.")
    block = eqx.filter_eval_shape(equation.control, 0.0)
    fields = operator_fields(without_constraint(equation.terms))
    for operator, field in zip(block, fields, strict=True):
        rate = eqx.filter_eval_shape(field, 0.0, u0, args)
        if rate.shape != u0.shape:
            raise InputError(
                f"solve: {type(operator).__name__} maps a state of shape {u0.shape} to "
                f"{rate.shape}; an operator must return du/dt in the shape of u."
            )


def check_steps(steps_per_interval: int) -> None:
    """Refuses a number of steps that does not divide an interval."""
    if not isinstance(steps_per_interval, int) or steps_per_interval < 1:
        raise InputError(
            f"solve: steps_per_interval={steps_per_interval!r} does not divide an interval "
            "into equal steps; it has to be a whole number from 1."
        )
