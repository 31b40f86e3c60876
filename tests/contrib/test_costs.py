"""Running costs, by NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, dynamics
from ide_transformer.dynamics import Path
from tests.helpers import WIDTH, built_control, largest
from tests.layered_models import HELD_OUT, model_of, simple_block


FIRST, H, NUMBER = HELD_OUT[:1, :3], 0.5, 3
COSTS = {
    "transport": dynamics.Transport(1.0),
    "rest": dynamics.Transport(1.0, 0.75),
    "energy": contrib.ControlEnergy(1.0),
    "smoothness": contrib.Smoothness(1.0),
    # At work at all depths, with as many products as numbers of a state.
    "contraction": contrib.Contraction(1.0, -50.0, 3 * WIDTH),
    "violation": contrib.ConstraintViolation(1.0, ide.RMSSphere(2.0)),
}


@pytest.fixture(scope="module")
def model():
    """Its weights are linear between knots, on intervals that are shorter than layers."""
    knots = built_control(simple_block, NUMBER, ide.PiecewiseLinear).knots
    return eqx.tree_at(
        lambda m: (m.control, m.constraint),
        model_of(),
        (ide.PiecewiseLinear(knots, H), ide.Tied(ide.Free(), NUMBER, H)),
    )


def with_control(model, control):
    return eqx.tree_at(lambda m: m.control, model, control)


@eqx.filter_jit
def costs_and_slope(model):
    """The costs, the states, and the slope of the contraction where the states are fixed."""
    path = Path.of(model, FIRST)

    def costs(control):
        changed = path._replace(model=with_control(model, control))
        values = {name: cost(changed) for name, cost in COSTS.items()}
        return values["contraction"], values

    (_, values), slope = eqx.filter_value_and_grad(costs, has_aux=True)(model.control)
    return values, path.states, slope


@eqx.filter_jit
def contraction_by_hand(model, middles):
    """The logarithmic norms of the field in the middle of intervals, from its Jacobian, and the
    slope of their integral."""

    def integral(control):
        equation, _ = with_control(model, control).initial_value_problem(FIRST)

        def log_norm(t, u):
            jacobian = jax.jacobian(lambda u: equation.vector_field(t, u))(u)
            matrix = jacobian.reshape(u.size, u.size)
            return jnp.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]

        depths = H * (jnp.arange(NUMBER) + 0.5)
        norms = jax.lax.map(lambda point: log_norm(*point), (depths, middles))
        return H * jnp.sum(norms), norms

    (_, norms), slope = eqx.filter_value_and_grad(integral, has_aux=True)(model.control)
    return norms, slope


def test_costs_are_those_of_numpy(model):
    values, states, slope = costs_and_slope(model)
    u = np.asarray(states)
    knots = [np.asarray(x) for x in jax.tree.leaves(model.control.knots)]
    middles = (u[1:] + u[:-1]) / 2
    sizes = np.sqrt(np.mean(middles**2, axis=-1))
    norms, slope_by_hand = contraction_by_hand(model, middles)
    expected = {
        "transport": np.sum(np.mean(np.diff(u, axis=0) ** 2, axis=(1, 2, 3))) / H,
        "rest": np.mean((u[-1] - u[-2]) ** 2) / H,
        "energy": H * sum(np.sum((x[1:] + x[:-1]) ** 2) / 4 for x in knots),
        "smoothness": sum(np.sum(np.diff(x, axis=0) ** 2) for x in knots) / H,
        "contraction": H * sum(norms + 50),
        "violation": H * np.sum(np.mean((sizes - 2) ** 2, axis=(1, 2))),
    }
    for name, value in expected.items():
        assert float(values[name]) == pytest.approx(float(value), rel=1e-9), name
    pairs = zip(*map(jax.tree.leaves, (slope, slope_by_hand)), strict=True)
    assert max(largest(a, b) for a, b in pairs) < 1e-8
