"""Costates are gradients with respect to the states, and the Hamiltonian is their product with
the rates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.contrib import costates
from tests.helpers import largest
from tests.layered_models import HELD_OUT, LAYERS, model_of


INPUTS = HELD_OUT[:2]


def loss(outputs):
    return -jnp.mean(jax.nn.log_softmax(outputs)[..., 3])


@eqx.filter_jit
def readings_by_hand(model, layer, u, p):
    """⟨p, A_i(u)⟩ along the sphere for each operator, and the sizes of its slopes in the
    weights."""
    _, domain = model.embed(INPUTS)

    def along(operator):
        return jnp.sum(p * model.constraint(layer).tangent(u, operator(u, domain)))

    pairs = [eqx.filter_value_and_grad(along)(x) for x in model.control(layer)]
    sizes = [sum(jnp.sum(x**2) for x in jax.tree.leaves(slope)) ** 0.5 for _, slope in pairs]
    return [value for value, _ in pairs], sizes


def test_costates_are_gradients_with_respect_to_the_states():
    model = model_of("sphere")
    result = costates(model, INPUTS, loss)
    later = ide.Equation(
        jax.tree.map(lambda x: x[2:], model.control),
        ide.Tied(model.constraint.block, LAYERS - 2),
        model.equation.domain,
    )

    @eqx.filter_jit
    @jax.grad
    def expected(u):
        return loss(model.outputs(ide.solve(later, u, solver=model.solver).u1))

    assert largest(result.costates[2], expected(result.states[2])) < 1e-10
    states, p = np.asarray(result.states), np.asarray(result.costates)
    for layer in range(LAYERS):
        values, sizes = readings_by_hand(
            model, jnp.asarray(float(layer)), states[layer], p[layer]
        )
        assert largest(result.hamiltonian[layer], values) < 1e-10
        assert largest(result.stationarity[layer], sizes) < 1e-10
