"""Running costs, distances of heads, waves of states and heads on a coarser grid, by NumPy; a
linear–quadratic problem by its normal equations."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib, dynamics
from ide_transformer.dynamics import Path
from tests.helpers import HEADS, WIDTH, built_control, largest
from tests.layered_models import (
    CONTEXT,
    HELD_OUT,
    LAYERS,
    layer_by_layer,
    model_of,
    simple_block,
    states_by_hand,
)


FIRST, H, NUMBER = HELD_OUT[:1, :3], 0.5, 3
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
    path = Path.of(model, FIRST)

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
        equation, _ = with_control(model, control).initial_value_problem(FIRST)

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
        "violation": H * np.sum(np.mean((sizes - 2) ** 2, axis=(1, 2))),
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
        mesh=ide.Mesh(solver=diffrax.Heun()),
    )

    def loss(u):
        return jnp.sum((u - target[None]) ** 2) / 2

    found = contrib.successive_approximations(
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


DEPTH, SIZE = WIDTH // HEADS, 2
kernel, waves = eqx.filter_jit(contrib.kernel), eqx.filter_jit(contrib.waves)


def projections(attention, u):
    if isinstance(attention.normalization, ide.LayerNorm):
        u = u - u.mean(-1, keepdims=True)
        u = u / np.sqrt(np.mean(u**2, axis=-1, keepdims=True) + 1e-5)
    maps = attention.query, attention.key, attention.value
    flat = (u @ np.asarray(x.weight) + np.asarray(x.bias) for x in maps)
    return [x.reshape(len(u), HEADS, DEPTH) for x in flat]


def kernel_of(query, key, weights=1.0):
    """`[heads, tokens, others]`."""
    mass = np.exp(np.einsum("xhd,zhd->hxz", query, key) / np.sqrt(DEPTH)) * weights
    return mass / mass.sum(-1, keepdims=True)


def with_outputs(attention, gamma, value):
    """A kernel and the outputs of its heads, `[heads, tokens, features]`."""
    output = np.asarray(attention.output.weight).reshape(HEADS, DEPTH, -1)
    return gamma, np.einsum("hxz,zhd,hdf->hxf", gamma, value, output)


def heads_by_hand(attention, u):
    query, key, value = projections(attention, u)
    return with_outputs(attention, kernel_of(query, key, np.tri(len(u))), value)


def on_blocks_by_hand(attention, u):
    """The keys of the blocks that have ended are their means, token by token."""
    query, key, value = projections(attention, u)
    rows = []
    for x, seen in enumerate(np.tri(CONTEXT)):
        tokens = np.arange(CONTEXT)
        ended = tokens < SIZE * ((x + 1) // SIZE)
        block = np.where(ended, tokens // SIZE, CONTEXT + tokens)
        same = np.equal.outer(block, block)
        means = np.einsum("zy,yhd->zhd", same / same.sum(1, keepdims=True), key)
        rows.append(kernel_of(query[x, None], means, seen))
    return with_outputs(attention, np.concatenate(rows, axis=1), value)


def each_sample(by_hand, attention, states):
    """Kernels and outputs, `[heads, samples, …]`."""
    return [
        np.stack(x, axis=1) for x in zip(*(by_hand(attention, u) for u in states), strict=True)
    ]


def states_and_attentions(model):
    """The states where layers begin, and the attention of each layer."""
    states = states_by_hand(model, layer_by_layer(range(LAYERS)))[:-1:2]
    layers = jax.tree.map(np.asarray, model.control.blocks[0])
    attentions = [jax.tree.map(lambda x, n=n: x[n], layers) for n in range(LAYERS)]
    return zip(map(np.asarray, states), attentions, strict=True)


def test_distances_and_errors_of_heads_are_those_of_numpy():
    model = model_of("attention")
    found = contrib.distances(model, HELD_OUT)
    coarse = contrib.coarse_heads(model, HELD_OUT, SIZE)
    assert found.bands.tolist() == [0, 1, 2, 4]
    apart = np.abs(np.subtract.outer(np.arange(CONTEXT), np.arange(CONTEXT)))
    for layer, (states, attention) in enumerate(states_and_attentions(model)):
        gamma, fine = each_sample(heads_by_hand, attention, states)
        mean = (gamma * apart).sum((1, 2, 3)) / gamma.sum((1, 2, 3))
        assert largest(found.mean[layer], mean) < 1e-10
        for band, inside in enumerate([apart == 0, apart == 1, apart // 2 == 1, apart > 3]):
            share = gamma[..., inside].sum((1, 2)) / (len(HELD_OUT) * CONTEXT)
            assert largest(found.spectrum[layer, :, band], share) < 1e-10

        smooth, off = each_sample(on_blocks_by_hand, attention, states)
        for name, x, y in (("predicted", smooth, gamma), ("error", off, fine)):
            sizes = [np.sqrt((z**2).sum((1, 2, 3))) for z in (x - y, y)]
            assert largest(getattr(coarse, name)[layer], sizes[0] / sizes[1]) < 1e-10
