"""Costates are gradients with respect to the states, and the Hamiltonian is their product with
the rates."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.contrib import costates
from tests.helpers import drawn, largest
from tests.layered_models import HELD_OUT, LAYERS, Cubic, cubic_model, model_of


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
    found = costates(model, INPUTS, loss)
    later = ide.Equation(
        jax.tree.map(lambda x: x[2:], model.control),
        ide.Tied(model.constraint.block, LAYERS - 2),
        model.equation.domain,
    )

    @eqx.filter_jit
    @jax.grad
    def expected(u):
        return loss(model.outputs(ide.solve(later, u, solver=model.solver).u1))

    assert largest(found.costates[2], expected(found.states[2])) < 1e-10
    states, p = np.asarray(found.states), np.asarray(found.costates)
    for layer in range(LAYERS):
        values, sizes = readings_by_hand(
            model, jnp.asarray(float(layer)), states[layer], p[layer]
        )
        assert largest(found.hamiltonian[layer], values) < 1e-10
        assert largest(found.stationarity[layer], sizes) < 1e-10


def test_the_hamiltonian_of_a_tied_equation_is_constant():
    control = ide.Tied((Cubic(drawn((4, 4), 0)),), 16, 1 / 16)
    model = cubic_model(control, ide.RK4())
    found = costates(model, drawn((2, 3, 4), 2, 0.5), lambda u: jnp.sum(jnp.sin(u)))
    assert np.ptp(found.hamiltonian) < 1e-4 * np.abs(found.hamiltonian).max()
