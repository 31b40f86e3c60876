"""Costates are gradients; running costs by NumPy; steering against the condition of an optimum;
training by Pontryagin's principle against a linear-quadratic problem."""

import functools as ft
import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, dynamics
from ide_transformer.contrib import costates, log_odds, steer
from ide_transformer.dynamics import March, Path
from tests.helpers import GOLDEN, WIDTH, built_control, largest
from tests.layered_models import HELD_OUT, LAYERS, model_of, simple_block
from tests.models.examples import StateInputs
from tests.running import run_here


INPUTS = HELD_OUT[:2]


def cross_entropy(outputs):
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
    result = costates(model, INPUTS, cross_entropy)
    control = jax.tree.map(lambda x: x[2:], model.control)
    constraint = ide.Tied(model.constraint.block, LAYERS - 2)
    later = ide.Equation(control, constraint, model.equation.domain)

    @eqx.filter_jit
    @jax.grad
    def expected(u):
        return cross_entropy(model.outputs(ide.solve(later, u, solver=model.solver).u1))

    assert largest(result.costates[2], expected(result.states[2])) < 1e-10
    states, p = np.asarray(result.states), np.asarray(result.costates)
    for layer in range(LAYERS):
        depth = jnp.asarray(float(layer))
        values, sizes = readings_by_hand(model, depth, states[layer], p[layer])
        assert largest(result.hamiltonian[layer], values) < 1e-10
        assert largest(result.stationarity[layer], sizes) < 1e-10


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
    parts = ide.PiecewiseLinear(knots, H), ide.Tied(ide.Free(), NUMBER, H)
    return eqx.tree_at(lambda m: (m.control, m.constraint), model_of(), parts)


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


@eqx.filter_jit
def marched(model, pushes):
    """The probabilities of 3 and the slopes of its odds in the pushes."""
    march = March.of("test", model, INPUTS)

    def odds(pushes):
        states = march.states(march.no_pushes.at[1:].set(pushes))
        p = jax.nn.softmax(model.outputs(states[-1]))[:, -1, 3]
        return jnp.sum(jnp.log(p / (1 - p))), p

    slopes, p = jax.grad(odds, has_aux=True)(pushes)
    return p, slopes


@pytest.mark.heavy
def test_steering_reaches_a_probability_with_the_least_energy():
    """At an optimum the pushes are along the slopes of what they reach."""
    level = np.log(9)
    model = model_of("attention")
    steered = ft.partial(steer, model, INPUTS, lambda y: log_odds(y[..., -1, :], 3), level)
    steering = steered()
    assert largest(steering.reached, level) < 1e-3
    probabilities, slopes = marched(model, steering.pushes)
    assert largest(probabilities, 0.9) < 1e-3
    each = np.swapaxes([steering.pushes, slopes], 1, 2).reshape(2, len(INPUTS), -1)
    for (pushes, along), energy in zip(np.swapaxes(each, 0, 1), steering.energy, strict=True):
        assert energy == pytest.approx(pushes @ pushes)
        cosine = pushes @ along / np.linalg.norm(pushes) / np.linalg.norm(along)
        assert cosine > 1 - 1e-3
    in_one_layer = steered(intervals=[1])
    assert largest(in_one_layer.reached, level) < 5e-3
    assert (in_one_layer.energy > 2 * steering.energy).all()
    assert largest(np.delete(in_one_layer.pushes, 1, axis=0), 0.0) == 0


class OneToken(StateInputs):
    features, domain = 3, ide.TokenDomain.uniform(1)


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
    num_steps, h, r = 4, 0.5, 0.5
    matrix = np.array([[0.1, 1.0, 0.0], [-1.0, 0.1, 0.3], [0.0, 0.2, -0.4]])
    start, target = np.array([1.0, 0.0, -1.0]), np.array([0.5, -1.0, 0.3])
    drift = Drift(tuple(map(tuple, matrix.tolist())))
    control = ide.PiecewiseConstant((drift, Push(jnp.zeros((num_steps, 3)))), h)
    parts = OneToken(), control, ide.Free(), ide.models.States()
    model = ide.Model(*parts, solver=diffrax.Heun())

    def loss(u):
        return jnp.sum((u - target[None]) ** 2) / 2

    costs = [contrib.ControlEnergy(r / 2)]
    inputs = jnp.asarray(start[None])
    result = contrib.successive_approximations(model, inputs, loss, costs, iterations=30)
    assert (np.diff(result.objectives) <= 0).all()
    step = np.eye(3) + h * matrix @ (np.eye(3) + h * matrix / 2)
    power, entering = np.linalg.matrix_power, h * (np.eye(3) + h * matrix / 2)
    slopes = np.hstack([power(step, num_steps - 1 - n) @ entering for n in range(num_steps)])
    missed = target - power(step, num_steps) @ start
    normal_matrix = slopes.T @ slopes + r * h * np.eye(3 * num_steps)
    expected = np.linalg.solve(normal_matrix, slopes.T @ missed)
    assert np.abs(expected).max() > 0.5
    assert largest(result.model.control.blocks[1].theta.ravel(), expected) < 1e-3


@pytest.mark.heavy
def test_the_command_prints_costates_and_energies_of_pushes(capsys, tmp_path):
    run_here(capsys, "dynamics", GOLDEN / "bert", "--samples", 4, "--out", tmp_path)
    rows = json.loads((tmp_path / "dynamics.json").read_text())["layers"]
    assert [row["layer"] for row in rows] == [0, 1]
    # The loss is the distance from the native outputs: its costates are zero up to rounding.
    assert all(row["costate"] < 1e-3 < row["state"] for row in rows)
    options = "--samples", 2, "--tokens", 3, "--out", tmp_path, "--steer", 0.05
    run_here(capsys, "dynamics", GOLDEN / "gpt2", *options)
    row = json.loads((tmp_path / "steering.json").read_text())
    # To push at all depths costs no more than in one layer.
    assert row["ratio, 95 %"] < 1
