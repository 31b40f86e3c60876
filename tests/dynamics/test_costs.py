"""Running costs: their values and gradients by NumPy; a linear–quadratic problem by its
normal equations."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, built_control, largest
from layered_models import HELD_OUT, model_of, simple_block

import ide_transformer as ide
from ide_transformer import dynamics
from ide_transformer.dynamics import Path


INPUTS, H, NUMBER = HELD_OUT[:1, :3], 0.5, 3
COSTS = {
    "transport": dynamics.Transport(1.0),
    "rest": dynamics.Transport(1.0, 0.75),
    "energy": dynamics.ControlEnergy(1.0),
    "smoothness": dynamics.Smoothness(1.0),
    # At work at all depths, with as many products as numbers of a state.
    "contraction": dynamics.Contraction(1.0, -50.0, 3 * WIDTH),
    "violation": dynamics.ConstraintViolation(1.0, ide.RMSSphere(2.0)),
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
    path = Path.of(model, INPUTS)

    def costs(control):
        there = path._replace(model=with_control(model, control))
        found = {name: cost(there) for name, cost in COSTS.items()}
        return found["contraction"], found

    (_, found), slope = eqx.filter_value_and_grad(costs, has_aux=True)(model.control)
    return found, path.states, slope


@eqx.filter_jit
def contraction_by_hand(model, middles):
    """The logarithmic norms of the field in the middle of intervals, from its Jacobian, and the
    slope of their integral."""

    def integral(control):
        equation, _ = with_control(model, control).initial_value_problem(INPUTS)

        def log_norm(t, u):
            jacobian = jax.jacobian(lambda u: equation.vector_field(t, u))(u)
            matrix = jacobian.reshape(u.size, u.size)
            return jnp.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]

        depths = H * (jnp.arange(NUMBER) + 0.5)
        norms = jax.lax.map(lambda given: log_norm(*given), (depths, middles))
        return H * jnp.sum(norms), norms

    (_, norms), slope = eqx.filter_value_and_grad(integral, has_aux=True)(model.control)
    return norms, slope


def test_costs_are_those_of_numpy(model):
    found, states, slope = costs_and_slope(model)
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
        "violation": H * np.sum(np.mean((sizes / 2 - 1) ** 2, axis=(1, 2))),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-9), name
    pairs = zip(*map(jax.tree.leaves, (slope, slope_by_hand)), strict=True)
    assert max(largest(a, b) for a, b in pairs) < 1e-8


class Drift(ide.AbstractOperator):
    """`u_t = A u`, A no weight."""

    matrix: tuple = eqx.field(static=True)

    def __call__(self, u, domain):
        return u @ jnp.asarray(self.matrix).T


class Push(ide.AbstractOperator):
    """`u_t = θ`."""

    theta: jax.Array

    def __call__(self, u, domain):
        return jnp.broadcast_to(self.theta, u.shape)


def test_successive_approximations_solve_a_linear_quadratic_problem():
    """`|u(T) - target|²/2 + r/2 ∫ |θ|² dt` of `u_t = A u + θ` in steps of Heun's method, whose
    end depends linearly on θ."""
    number, h, r = 8, 0.25, 0.5
    matrix = np.array([[0.1, 1.0, 0.0], [-1.0, 0.1, 0.3], [0.0, 0.2, -0.4]])
    start, target = np.array([1.0, 0.0, -1.0]), np.array([0.5, -1.0, 0.3])
    drift = Drift(tuple(map(tuple, matrix.tolist())))
    model = ide.StateModel(
        ide.TokenDomain.uniform(1),
        3,
        control=ide.PiecewiseConstant((drift, Push(jnp.zeros((number, 3)))), h),
        constraint=ide.Free(),
        discretization=ide.Discretization(diffrax.Heun()),
    )

    def loss(u):
        return jnp.sum((u - target[None]) ** 2) / 2

    found = dynamics.successive_approximations(
        model, jnp.asarray(start[None]), loss, [dynamics.ControlEnergy(r / 2)], iterations=30
    )
    assert (np.diff(found.objectives) <= 0).all()
    step = np.eye(3) + h * matrix @ (np.eye(3) + h * matrix / 2)
    power, entering = np.linalg.matrix_power, h * (np.eye(3) + h * matrix / 2)
    slopes = np.hstack([power(step, number - 1 - n) @ entering for n in range(number)])
    missed = target - power(step, number) @ start
    expected = np.linalg.solve(
        slopes.T @ slopes + r * h * np.eye(3 * number), slopes.T @ missed
    )
    assert np.abs(expected).max() > 0.5
    assert largest(found.model.control.blocks[1].theta.ravel(), expected) < 1e-3
