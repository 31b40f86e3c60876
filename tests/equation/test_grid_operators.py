"""Operators over the points of a grid: waves, differences, convolutions."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, made, state
from helpers import WIDTH, largest, random_state
from published.numpy_blocks import gelu, linear

import ide_transformer as ide


TOKENS = 7
UNIFORM = ide.TokenDomain.uniform(TOKENS)
CIRCLE = ide.TokenDomain.periodic(12, 2.0)
TORUS = ide.TokenDomain.periodic((6, 8), (1.0, 2.0))


def wave(domain, *numbers):
    """A wave of the domain, with these numbers along the axes."""
    lengths = np.array(domain.period)
    return np.asarray(domain.points) @ (2 * np.pi * np.array(numbers) / lengths)


def features(x):
    return jnp.asarray(x)[:, None] * jnp.ones((1, WIDTH))


def test_advection_moves_a_function_by_the_velocity():
    for domain, velocity in ((CIRCLE, [0.7]), (TORUS, [0.3, -0.4])):
        operator = ide.Advection(jnp.array(velocity))
        x = np.asarray(domain.points)
        moved = ide.TokenDomain(jnp.asarray(x - 0.5 * np.array(velocity)), period=domain.period)
        numbers = (2, 3)[: len(velocity)]
        u, expected = (features(np.cos(wave(y, *numbers))) for y in (domain, moved))
        assert largest(made(operator.flow, u, domain, 0.5), expected) < 1e-13
        angle = wave(domain, *numbers)
        slope = 2 * np.pi * np.array(numbers) / np.array(domain.period) @ np.array(velocity)
        assert largest(apply(operator, u, domain), features(slope * np.sin(angle))) < 1e-12


def test_diffusion_damps_each_wave_by_itself():
    operator, line = ide.Diffusion(0.1), ide.TokenDomain.midpoint(7, (0.0, 3.0))
    cosine = features(2 + np.cos(2 * np.pi * np.asarray(line.points)[:, 0] / 3))
    slower = 2 + (cosine - 2) * np.exp(-0.1 * 0.3 * (2 * np.pi / 3) ** 2)
    assert largest(made(operator.flow, cosine, line, 0.3), slower) < 1e-13
    for domain, numbers in ((CIRCLE, (2,)), (TORUS, (1, 3))):
        u = features(np.cos(wave(domain, *numbers)))
        k = 2 * np.pi * np.array(numbers) / np.array(domain.period)
        expected = np.exp(-0.1 * 0.3 * (k @ k)) * u
        assert largest(made(operator.flow, u, domain, 0.3), expected) < 1e-13


@pytest.mark.parametrize(
    ("name", "order"), [("DifferenceDiffusion", 2), ("DifferenceAdvection", 1)]
)
def test_differences_converge_at_their_order(name, order):
    errors = []
    for n in (32, 64):
        domain = ide.TokenDomain.periodic((n, n), (1.0, 2.0))
        angle = wave(domain, 1, 2)
        k = 2 * np.pi * np.array([1, 2]) / np.array(domain.period)
        if name == "DifferenceDiffusion":
            operator, exact = ide.DifferenceDiffusion(0.2), -0.2 * (k @ k) * np.sin(angle)
        else:
            velocity = np.array([0.5, -0.3])
            operator = ide.DifferenceAdvection(jnp.asarray(velocity))
            exact = -(k @ velocity) * np.cos(angle)
        errors.append(
            largest(apply(operator, features(np.sin(angle)), domain), features(exact))
        )
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.1


def test_nothing_flows_through_the_ends():
    u = state(tokens=TOKENS)
    rate = apply(ide.DifferenceDiffusion(jnp.full(WIDTH, 0.3)), u, UNIFORM)
    inner = 0.3 * (u[2:] - 2 * u[1:-1] + u[:-2])
    assert largest(rate[1:-1], inner) < 1e-14
    assert largest(jnp.sum(rate, axis=0), jnp.zeros(WIDTH)) < 1e-13
    later = apply(ide.DifferenceAdvection(jnp.array([1.0])), u, UNIFORM)
    assert largest(later, -jnp.diff(u, axis=0, prepend=u[:1])) < 1e-14


def scattered(number, dimension):
    """Random points of a torus of other lengths than 1, with random weights for each of two
    samples."""
    random, lengths = np.random.default_rng(2), (1.5, 0.7)[:dimension]
    points = jnp.asarray(random.random((number, dimension)) * lengths)
    return ide.TokenDomain(points, jnp.asarray(random.random((2, number))), period=lengths)


@pytest.mark.parametrize(
    ("domain", "modes"),
    [
        (ide.TokenDomain.periodic(8), 3),
        (ide.TokenDomain.periodic((6, 8)), 2),
        (scattered(8, 1), 3),
        (scattered(20, 2), 2),
    ],
    ids=["line", "plane", "points of a line", "points of the plane"],
)
def test_a_fourier_integral_is_the_layer_of_a_neural_operator(key, domain, modes):
    """The convolution with the kernel, point by point."""
    dimension = domain.dimension
    operator = ide.FourierIntegral(
        WIDTH, key=key, modes=modes, dimension=dimension, std=0.3, output_std=0.2
    )
    lengths = np.ones(dimension) if domain.grid else np.array(domain.period)
    shares = np.broadcast_to(domain.shares, (2, domain.num_tokens))
    u = np.asarray(random_state(2, tokens=domain.num_tokens))
    x = np.asarray(domain.points) / lengths
    r = np.asarray(operator.weight)
    r = r[:, 0] + 1j * r[:, 1]
    weights = {tuple(k): value for k, value in zip(operator.waves.tolist(), r, strict=True)}
    assert len(weights) == (2 * modes - 1) ** (dimension - 1) * modes
    total = np.zeros_like(u)
    for k in itertools.product(range(1 - modes, modes), repeat=dimension):
        opposite = tuple(-i for i in k)
        if k[-1] > 0:
            value = weights[k]
        elif k[-1] < 0:
            value = weights[opposite].conj()
        else:
            # Both are among the weights, and a real function sees their mean.
            value = (weights[k] + weights[opposite].conj()) / 2
        phase = np.exp(2j * np.pi * (x[:, None] - x[None]) @ np.array(k))
        total += (phase @ (shares[..., None] * u) @ value).real
    expected = gelu(total + linear(operator.linear, u))
    assert largest(apply(operator, jnp.asarray(u), domain), expected) < 1e-12


CONVOLUTIONS = {
    "text": (UNIFORM, {}),
    "causal": (UNIFORM, {"causal": True, "width": 4}),
    "depthwise": (UNIFORM, {"depthwise": True, "width": 5}),
    "circle": (ide.TokenDomain.periodic(TOKENS), {}),
    "two apart": (ide.TokenDomain.periodic(TOKENS), {"spacing": 2 / TOKENS}),
    "plane": (ide.TokenDomain.uniform((3, 4)), {"dimension": 2}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_sums_over_neighbours(key, case):
    domain, options = CONVOLUTIONS[case]
    operator = ide.Convolution(WIDTH, key=key, std=0.3, **options)
    bias = np.linspace(0, 1, WIDTH)
    operator = eqx.tree_at(lambda x: x.bias, operator, jnp.asarray(bias))
    u = np.asarray(state(tokens=domain.num_tokens))
    weight = np.asarray(operator.weight)
    width = weight.shape[0]
    before = width - 1 if operator.causal else width // 2
    hop = 1 if operator.spacing is None else 2
    places = [*np.ndindex(domain.grid)]
    expected = np.tile(bias, (len(u), 1))
    for row, place in enumerate(places):
        for tap in np.ndindex(weight.shape[:-2]):
            there = np.array(place) + hop * (np.array(tap) - before)
            if domain.period is not None:
                there = there % domain.grid
            if tuple(there) in places:
                v = u[places.index(tuple(there))]
                w = weight[tap]
                expected[row] += v * w[0] if options.get("depthwise") else v @ w
    assert largest(apply(operator, jnp.asarray(u), domain), expected) < 1e-12


def local(domain, kind, key, **options):
    options = dict(dimension=domain.dimension, width=5, std=0.3, key=key) | options
    return getattr(ide, kind)(WIDTH, **options)


SMOOTH = {
    "circle": (lambda n: ide.TokenDomain.periodic(n), lambda x: np.sin(2 * np.pi * x[..., 0])),
    # As it is 0 beyond the ends.
    "interval": (
        lambda n: ide.TokenDomain.midpoint(n),
        lambda x: np.sin(np.pi * x[..., 0].clip(0, 1)) ** 6,
    ),
    "plane": (
        lambda n: ide.TokenDomain.periodic((n, n)),
        lambda x: np.sin(2 * np.pi * (x[..., 0] + x[..., 1])),
    ),
}


def convolution(function, weight, spacing):
    """By hand, of a function of any place."""
    taps = {
        k: spacing * (np.array(k) - weight.shape[0] // 2) for k in np.ndindex(weight.shape[:-2])
    }
    return lambda x: sum(function(x + taps[k]) @ weight[k] for k in taps)


FOURTH_ORDER = [("Convolution", case, {}) for case in SMOOTH]
FOURTH_ORDER += [("ConvolutionalFeedForward", "interval", dict(outer_width=3, std=0.1))]


@pytest.mark.parametrize(("kind", "case", "options"), FOURTH_ORDER)
def test_a_kernel_in_length_is_of_fourth_order_on_any_grid(key, kind, case, options):
    """Beside the function itself at the places of the kernel."""
    on, function = SMOOTH[case]
    # A third or two thirds of a step from a point, on both grids.
    errors, factors, spacing = [], np.linspace(0.5, 1.5, WIDTH), 1 / 30
    for n in (40, 80):
        domain = on(n)
        operator = local(domain, kind, key, spacing=spacing, **options)
        first, *others = (np.asarray(x) for x in jax.tree.leaves(operator) if x.ndim > 1)
        exact = convolution(lambda x: function(x)[:, None] * factors, first, spacing)
        for weight in others:
            exact = convolution(lambda x, inner=exact: gelu(inner(x)), weight, spacing)
        points = np.asarray(domain.points)
        u = jnp.asarray(function(points)[:, None] * factors)
        errors.append(largest(apply(operator, u, domain), exact(points)))
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.2, errors


def test_a_gated_one_is_a_product_of_two(key):
    domain = ide.TokenDomain.periodic(TOKENS)
    operator = local(domain, "ConvolutionalFeedForward", key, gated=True, hidden=6)
    u = state(tokens=TOKENS)
    gate, inner = (
        sum(jnp.roll(u, 2 - k, axis=0) @ x[k] for k in range(5))
        for x in (operator.gate, operator.inner)
    )
    expected = (gelu(np.asarray(gate)) * np.asarray(inner)) @ np.asarray(operator.outer)[0]
    assert largest(apply(operator, u, domain), expected) < 1e-13


def test_a_recurrence_is_the_cell_of_equinox(key):
    operator = ide.GatedRecurrence(WIDTH, std=0.5, key=key)
    operator = eqx.tree_at(lambda x: x.bias, operator, jnp.linspace(-1.0, 1.0, 3 * WIDTH))
    cell = eqx.nn.GRUCell(WIDTH, WIDTH, key=key)
    weights = operator.weight.T, operator.memory.T, operator.bias, jnp.zeros(WIDTH)
    names = "weight_ih", "weight_hh", "bias", "bias_n"
    cell = eqx.tree_at(lambda x: [getattr(x, name) for name in names], cell, weights)
    u, s, expected = state(tokens=TOKENS), jnp.zeros(WIDTH), []
    for token in u:
        expected.append(s := cell(token, s))
    found = apply(operator, u, ide.TokenDomain.uniform(TOKENS))
    assert largest(found, jnp.stack(expected)) < 1e-14
