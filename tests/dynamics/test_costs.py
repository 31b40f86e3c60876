"""Running costs: their values and gradients by NumPy, and their orders; a linear–quadratic
problem by three methods."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import WIDTH, built_control, largest, make_block
from layered_models import HELD_OUT, LAYERS, model_of
from scipy.integrate import solve_ivp

import ide_transformer as ide
from ide_transformer import dynamics
from ide_transformer.dynamics import Path


INPUTS = HELD_OUT[:1, :3]
COSTS = {
    "transport": dynamics.Transport(1.0),
    "rest": dynamics.Transport(1.0, 0.75),
    "energy": dynamics.ControlEnergy(1.0),
    "smoothness": dynamics.Smoothness(1.0),
    # At work at all depths; with as many products as numbers of a state, and with few.
    "contraction": dynamics.Contraction(1.0, -50.0, 3 * WIDTH),
    "estimate": dynamics.Contraction(1.0, -50.0),
    "violation": dynamics.ConstraintViolation(1.0, ide.RMSSphere(2.0)),
}


def middles(states):
    return (states[1:] + states[:-1]) / 2


def log_norm(model, layer, u):
    """The logarithmic norm of the field of a layer, from its Jacobian."""
    equation, _ = model.initial_value_problem(INPUTS)
    jacobian = jax.jacobian(lambda u: equation.vector_field(layer + 0.5, u))(u)
    matrix = jacobian.reshape(u.size, u.size)
    return jnp.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]


@eqx.filter_jit
def costs_of(model, costs=COSTS):
    path = Path.of(model, INPUTS)
    return {name: cost(path) for name, cost in costs.items()}, path.states


def test_the_costs_of_layers_are_those_of_numpy():
    model = model_of()
    found, states = costs_of(model)
    u = np.asarray(states)
    weights = [np.asarray(x) for x in jax.tree.leaves(model.control.blocks)]
    sizes = np.sqrt(np.mean(np.asarray(middles(u)) ** 2, axis=-1))
    norms = [log_norm(model, layer, x) for layer, x in enumerate(middles(states))]
    expected = {
        "transport": np.sum(np.mean(np.diff(u, axis=0) ** 2, axis=(1, 2, 3))),
        "rest": np.mean((u[-1] - u[-2]) ** 2),
        "energy": sum(np.sum(x**2) for x in weights),
        "smoothness": sum(np.sum(np.diff(x, axis=0) ** 2) for x in weights),
        "contraction": sum(norms) + 50 * LAYERS,
        "violation": np.sum(np.mean((sizes / 2 - 1) ** 2, axis=(1, 2))),
    }
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-9), name
    assert 0.8 * sum(norms) < found["estimate"] - 50 * LAYERS < sum(norms)


def test_the_gradient_of_contraction_is_that_of_the_eigenvalue():
    model = model_of()
    _, states = costs_of(model)

    @eqx.filter_grad
    def slope(control, exact):
        changed = eqx.tree_at(lambda m: m.control, model, control)
        if exact:
            return sum(log_norm(changed, n, x) for n, x in enumerate(middles(states)))
        return COSTS["contraction"](Path(changed, INPUTS, states))

    found, expected = (eqx.filter_jit(slope)(model.control, exact) for exact in (False, True))
    pairs = zip(*map(jax.tree.leaves, (found, expected)), strict=True)
    assert max(largest(a, b) for a, b in pairs) < 1e-8


@pytest.mark.parametrize(("solver", "order"), [(diffrax.Euler(), 1), (diffrax.Heun(), 2)])
def test_integrals_have_the_order_of_the_scheme(solver, order):
    control = built_control(lambda key: make_block(key)[1:], 3, ide.Chebyshev)
    model = eqx.tree_at(
        lambda m: (m.control, m.constraint), model_of(), (control, ide.Tied(ide.Free(), 3))
    )
    model = model.with_solver(solver)
    # Costs of the weights alone do not depend on the scheme.
    orders = dict.fromkeys(COSTS, order) | {"energy": 2, "smoothness": 2}
    del orders["contraction"], orders["rest"]
    costs = {name: COSTS[name] for name in orders}
    numbers = [12, 24, 48, 96, 192]
    found = [costs_of(model.on(ide.Mesh(intervals=n)), costs)[0] for n in numbers]
    for name, expected in orders.items():
        errors = np.abs(np.diff([float(x[name]) for x in found]))
        slope = -np.polyfit(np.log(numbers[:-1]), np.log(errors), 1)[0]
        assert slope == pytest.approx(expected, abs=0.2), (name, errors)


def test_the_own_constraint_is_violated_between_knots_alone():
    model = model_of("sphere")
    path = eqx.filter_jit(Path.of)(model, INPUTS)
    own = dynamics.ConstraintViolation(1.0)(path)
    distances = np.asarray(ide.Sphere(1.0, 0.1).residual(middles(path.states)))
    assert float(own) == pytest.approx(np.sum(np.mean(distances**2, axis=(1, 2))), rel=1e-9)
    assert float(own) > 1e-4


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


def riccati(matrix, start, target, r, depths):
    """The control of `u_t = A u + θ` that minimises `|u(T) - target|²/2 + r/2 ∫ |θ|² dt`."""
    n, end = len(start), 2.0

    def backwards(s, y):
        p, k = y[:-n].reshape(n, n), y[-n:]
        dp = matrix.T @ p + p @ matrix - p @ p / r
        return np.append(dp.ravel(), (matrix.T - p / r) @ k)

    options = dict(dense_output=True, rtol=1e-9, atol=1e-9)
    first = np.append(np.eye(n).ravel(), -target)
    kept = solve_ivp(backwards, (0, end), first, **options).sol

    def control(t, u):
        y = kept(end - t)
        return -(y[:-n].reshape(n, n) @ u + y[-n:]) / r

    u = solve_ivp(lambda t, u: matrix @ u + control(t, u), (0, end), start, **options).sol
    return np.array([control(t, u(t)) for t in depths])


def test_successive_approximations_adamw_and_riccati_agree():
    number, r = 40, 0.5
    h = 2 / number
    matrix = np.array([[0.1, 1.0, 0.0], [-1.0, 0.1, 0.3], [0.0, 0.2, -0.4]])
    start, target = np.array([1.0, 0.0, -1.0]), np.array([0.5, -1.0, 0.3])
    drift = Drift(tuple(map(tuple, matrix.tolist())))
    control = ide.PiecewiseConstant((drift, Push(jnp.zeros((number, 3)))), h)
    model = ide.StateModel(
        ide.TokenDomain.uniform(1),
        3,
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(diffrax.Heun()),
    )
    energy, u0 = dynamics.ControlEnergy(r / 2), jnp.asarray(start[None])

    def loss(u):
        return jnp.sum((u - target[None]) ** 2) / 2

    found = dynamics.successive_approximations(model, u0, loss, [energy], iterations=30)
    assert (np.diff(found.objectives) <= 0).all()

    rule = optax.adamw(optax.cosine_decay_schedule(0.05, 1000), weight_decay=0.0)

    def step(carry, _):
        theta, state = carry

        @jax.grad
        def slope(theta):
            there = eqx.tree_at(lambda m: m.control.blocks[1].theta, model, theta)
            return loss(there(u0)) + energy.weight * energy(Path(there, u0, None))

        updates, state = rule.update(slope(theta), state, theta)
        return (theta + updates, state), None

    theta = control.blocks[1].theta
    trained, _ = jax.jit(lambda x: jax.lax.scan(step, x, length=1000)[0])(
        (theta, rule.init(theta))
    )
    expected = riccati(matrix, start, target, r, h * (np.arange(number) + 0.5))
    assert np.abs(expected).max() > 0.5
    assert np.abs(found.model.control.blocks[1].theta - expected).max() < 1e-3
    assert np.abs(trained - expected).max() < 1e-3
