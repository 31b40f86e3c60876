"""Training by Pontryagin's principle."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.arguments import PositiveFloat, PositiveInt, checked
from ide_transformer.dynamics import (
    AbstractCost,
    March,
    Path,
    over_interval,
    scan_intervals,
    step_ends,
)
from ide_transformer.models import Model


class Approximations(NamedTuple):
    """The result of successive approximations.

    - `model`: with the last weights θ.
    - `objectives`: J before the first approximation and after each.
    """

    model: Model
    objectives: Float[Array, " iterations"]


@checked
@eqx.filter_jit
def successive_approximations(
    model: Model,
    inputs: PyTree[ArrayLike],
    loss: Callable[..., Float[Array, ""]],
    costs: Sequence[AbstractCost] = (),
    *,
    iterations: PositiveInt = 100,
    steps: PositiveInt = 5,
    penalty: PositiveFloat = 1.0,
) -> Approximations:
    """The weights θ(t) that minimise `J = loss(outputs) + Σ weight · cost` on one batch, by
    the extended method of successive approximations. A march forward gives the states u_l, one
    backward the costates `p_l = dJ/du_l`, and then θ minimises, with both fixed,

        Σ_l ⟨p_{l+1}, Ψ_l(u_l; θ)⟩ + running costs of (u, θ)
            + ρ/2h Σ_l (|Ψ_l(u_l; θ) - u_{l+1}|² + |∂_u ⟨p_{l+1}, Ψ_l(u_l; θ)⟩ - q_l|²),

    Ψ_l the native steps in interval l and q_l this derivative before: the augmented
    Hamiltonian, which separate layers minimise separately. An approximation that does not lower
    J is dropped and multiplies ρ by 4; otherwise ρ is halved. For small problems; the weights
    of inputs, constraint and read-out stay. Reference: Li, Chen, Tai, E, arXiv 1710.09513,
    where costates have the other sign and the Hamiltonian is maximised.

    **Arguments:**

    - `loss`: from the outputs to a number.
    - `costs`: running costs, with their weights.
    - `iterations`, `steps`: approximations, and steps of L-BFGS in each.
    - `penalty`: the first ρ.
    """
    import optax

    theta, static = eqx.partition(model.control, eqx.is_inexact_array)
    rule = optax.lbfgs()
    h = model.control.interval_length

    def with_weights(theta):
        return eqx.tree_at(lambda m: m.control, model, eqx.combine(theta, static))

    def march_of(theta):
        return March.of("successive_approximations", with_weights(theta), inputs)

    def running(theta, states):
        path = Path(with_weights(theta), inputs, states)
        return sum((cost.weight * cost(path) for cost in costs), jnp.zeros(()))

    def objective(pushes, theta):
        states = march_of(theta).states(pushes)
        end = loss(model.outputs(states[-1], inputs))
        return end + running(theta, states), states

    def stepped(theta, states):
        """The states at the ends of intervals, from the states where they begin."""
        march = march_of(theta)

        def visit(_, terms, start, u):
            ends = step_ends(march.equation, start, march.steps)
            return None, over_interval(march.solver, terms, ends, u)

        return scan_intervals(march.equation, visit, None, states, dtype=states.dtype)[1]

    zeros = march_of(theta).no_pushes

    def approximate(carry, _):
        theta, penalty = carry
        (value, states), p = jax.value_and_grad(objective, has_aux=True)(zeros, theta)

        def pulled(theta):
            ends, pull = jax.vjp(lambda u: stepped(theta, u), states[:-1])
            return ends, pull(p[1:])[0]

        _, q = pulled(theta)

        def augmented(theta):
            ends, new = pulled(theta)
            change = jnp.sum((ends - states[1:]) ** 2) + jnp.sum((new - q) ** 2)
            hamiltonian = jnp.sum(p[1:] * ends) + running(theta, states)
            return hamiltonian + penalty / (2 * h) * change

        value_and_grad = optax.value_and_grad_from_state(augmented)

        def step(carry, _):
            theta, state = carry
            value, slope = value_and_grad(theta, state=state)
            given = dict(value=value, grad=slope, value_fn=augmented)
            updates, state = rule.update(slope, state, theta, **given)
            return (optax.apply_updates(theta, updates), state), None

        (new, _), _ = lax.scan(step, (theta, rule.init(theta)), length=steps)
        found, _ = objective(zeros, new)
        lower = found < value
        theta = jax.tree.map(lambda x, y: jnp.where(lower, x, y), new, theta)
        penalty = jnp.where(lower, penalty / 2, 4 * penalty)
        return (theta, penalty), jnp.where(lower, found, value)

    first, _ = objective(zeros, theta)
    start = theta, jnp.asarray(penalty, zeros.dtype)
    (theta, _), later = lax.scan(approximate, start, length=iterations)
    return Approximations(with_weights(theta), jnp.concatenate([first[None], later]))
