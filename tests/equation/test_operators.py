"""Operators that act on each token by itself, those around another one, and those over the
points of a grid: waves, differences, convolutions."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from tests.equation.problems import apply, computed, project, state
from tests.helpers import WIDTH, built, largest, random_state
from tests.published.numpy_blocks import gelu, linear


def silu(x):
    return x / (1 + np.exp(-x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    ide.relu: lambda x: np.maximum(x, 0),
    ide.gelu: gelu,
    ide.equation.gelu_tanh: gelu_tanh,
    ide.silu: silu,
    ide.equation.quick_gelu: lambda x: silu(1.702 * x) / 1.702,
}


def test_feed_forwards(key):
    u = np.asarray(state())
    activated = jax.jit(lambda u: [activation(u) for activation in ACTIVATIONS])(u)
    for value, by_hand in zip(activated, ACTIVATIONS.values(), strict=True):
        assert largest(value, by_hand(u)) < 1e-14
    plain = built(lambda: ide.FeedForward(WIDTH, key=key))
    gated = built(lambda: ide.GatedFeedForward(WIDTH, key=key, bias=True))
    assert plain.inner.weight.shape == (16, 64) and gated.inner.weight.shape == (16, 48)
    hidden = linear(gated.inner, u) * silu(linear(gated.gate, u))
    for operator, inner in ((plain, gelu(linear(plain.inner, u))), (gated, hidden)):
        assert largest(apply(operator, u), linear(operator.outer, inner)) < 1e-13


def test_wrapped_operators_keep_the_flow_that_they_know(key):
    damping, u, domain = ide.Damping(2.0), state(), ide.TokenDomain.uniform(6)

    def end(operator, solver):
        control = ide.Tied((operator,), 1)
        return ide.solve(ide.Equation(control, ide.Free(), domain), u, solver=solver)

    exponential = ide.ExponentialEuler()
    for operator, solver, rate in (
        (ide.Dropout(damping, 0.5), exponential, 2.0),
        (ide.Dropout(ide.equation.Scaled(damping, 0.5), 0.5), ide.LieTrotter(), 1.0),
        (ide.equation.Scaled(ide.Dropout(damping, 0.0, key), 0.5), exponential, 1.0),
    ):
        solution = end(operator, solver)
        assert largest(solution.u1, np.exp(-rate) * u) < 1e-15
        assert solution.stats == end(damping, solver).stats
    changes = np.asarray(end(ide.Dropout(damping, 0.5, key), ide.LieTrotter()).u1) / u - 1
    twice = 2 * np.expm1(-2.0)
    assert set(np.unique(changes.round(12))) == {0.0, twice.round(12)}


def test_the_normalisation_shrinks_with_depth(key):
    norm = ide.LayerNorm(jnp.linspace(1, 2, 4), jnp.linspace(-1, 1, 4))
    inner = built(lambda: ide.equation.FeatureIntegral(4, key=key, normalization=norm))
    u = np.asarray(state(width=4))
    rate = apply(ide.contrib.LayerNormScaling(inner).at(3.0, None), u)
    expected = linear(inner.map, np.asarray(project(inner.normalization, u)) / 2)
    assert largest(rate, expected) < 1e-14


TOKENS, FACTORS = 7, np.linspace(0.5, 1.5, WIDTH)
UNIFORM = ide.TokenDomain.uniform(TOKENS)
TORUS = ide.TokenDomain.periodic((6, 8), (1.0, 2.0))


def features(x):
    return jnp.asarray(np.outer(x, np.ones(WIDTH)))


def test_diffusion_damps_each_wave_by_itself():
    operator, line = ide.equation.Diffusion(0.1), ide.TokenDomain.midpoint(7, (0.0, 3.0))
    cosine = np.cos(2 * np.pi * np.asarray(line.points)[:, 0] / 3)
    square = (2 * np.pi) ** 2 * np.array([1 / 9, 1 + 9 / 4])
    slower, torus = np.exp(-0.03 * square)
    end = computed(operator.flow, features(2 + cosine), line, 0.3)
    assert largest(end, features(2 + slower * cosine)) < 1e-13
    u = features(np.cos(np.asarray(TORUS.points) @ [2 * np.pi, 3 * np.pi]))
    assert largest(computed(operator.flow, u, TORUS, 0.3), torus * u) < 1e-13


def scattered():
    draw = np.random.default_rng(2)
    points, weights = draw.random((20, 2)) * [1.5, 0.7], draw.random((2, 20))
    return ide.TokenDomain(jnp.asarray(points), jnp.asarray(weights), period=(1.5, 0.7))


@pytest.mark.parametrize("domain", [TORUS, scattered()])
def test_a_fourier_integral_is_the_layer_of_a_neural_operator(key, domain):
    operator = built(lambda: ide.FourierIntegral(WIDTH, key=key, modes=2, dimension=2))
    shares = np.broadcast_to(domain.shares, (2, domain.num_tokens))[..., None]
    u = np.asarray(random_state(2, tokens=domain.num_tokens))
    x, r = np.asarray(domain.points) / domain.period, np.asarray(operator.weight)
    waves = map(tuple, operator.waves.tolist())
    weights = dict(zip(waves, r[:, 0] + 1j * r[:, 1], strict=True))
    assert len(weights) == 6
    total = np.zeros_like(u)
    for k in itertools.product((-1, 0, 1), repeat=2):
        value = weights.get(k, 0) + np.conj(weights.get((-k[0], -k[1]), 0))
        # Where both are among the weights a real function sees their mean.
        value = value / 2 if k[-1] == 0 else value
        phase = np.exp(2j * np.pi * (x[:, None] - x) @ np.array(k))
        total += (phase @ (shares * u) @ value).real
    expected = gelu(total + linear(operator.linear, u))
    assert largest(apply(operator, u, domain), expected) < 1e-12


CONVOLUTIONS = {
    "causal": (UNIFORM, {"causal": True, "width": 4}),
    "wide": (UNIFORM, {"width": 5}),
    "two apart": (ide.TokenDomain.periodic(TOKENS), {"spacing": 2 / TOKENS}),
    "plane": (ide.TokenDomain.uniform((3, 4)), {"dimension": 2}),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_sums_over_neighbours(key, case):
    domain, options = CONVOLUTIONS[case]
    operator = built(lambda: ide.Convolution(WIDTH, key=key, **options))
    u, places = np.asarray(state(tokens=domain.num_tokens)), [*np.ndindex(domain.grid)]
    weight, expected = np.asarray(operator.weight), np.tile(operator.bias, (len(u), 1))
    before = len(weight) - 1 if operator.causal else len(weight) // 2
    hop = 1 if operator.spacing is None else 2
    for row, tap in itertools.product(range(len(u)), np.ndindex(weight.shape[:-2])):
        neighbour = np.array(places[row]) + hop * (np.array(tap) - before)
        neighbour = neighbour if domain.period is None else neighbour % domain.grid
        if tuple(neighbour) in places:
            expected[row] += u[places.index(tuple(neighbour))] @ weight[tap]
    assert largest(apply(operator, u, domain), expected) < 1e-12


def test_a_causal_kernel_in_length_sees_no_later_point(key):
    """Also where its places lie between points; polynomials of third degree are exact."""
    options = dict(width=3, spacing=1 / 40, causal=True, bias=False, key=key)
    operator = built(lambda: ide.Convolution(1, **options))
    points, domain = np.arange(32) / 32, ide.TokenDomain.midpoint(32)
    slopes = jax.jacobian(lambda u: apply(operator, u, domain))(jnp.ones((32, 1)))
    assert not np.triu(slopes[:, 0, :, 0], 1).any()
    weight = np.asarray(operator.weight)[:, 0, 0]
    exact = sum(w * (points - k / 40) ** 3 for w, k in zip(weight, (2, 1, 0), strict=True))
    rate = apply(operator, jnp.asarray(points[:, None] ** 3), domain)[:, 0]
    assert largest(rate[5:], exact[5:]) < 1e-12
    with pytest.raises(ide.InputError, match="causal=True"):
        operator(jnp.ones((32, 1)), ide.TokenDomain.periodic(32))


def test_kernels_in_length_are_of_fourth_order_on_any_grid(key):
    """Beside functions at the places of the kernels, which are zero beyond the ends."""

    def convolved(function, weight):
        taps = np.arange(-2, 3) / 30
        return lambda x: sum(function(x + t) @ w for t, w in zip(taps, weight, strict=True))

    options = dict(width=5, outer_width=3, spacing=1 / 30, bias=False, key=key)
    operator = built(lambda: ide.ConvolutionalFeedForward(WIDTH, **options), std=0.2)
    inner, outer = np.asarray(operator.inner), np.pad(operator.outer, [(1, 1), (0, 0), (0, 0)])
    function = lambda x: np.outer(np.sin(np.pi * x.clip(0, 1)) ** 6, FACTORS)  # noqa: E731
    hidden = convolved(function, inner)
    exact, errors = convolved(lambda x: gelu(hidden(x)), outer), []
    # A third or two thirds of a step from a point, on both grids.
    for n in (40, 80):
        domain = ide.TokenDomain.midpoint(n)
        points = np.asarray(domain.points)[:, 0]
        rate = apply(operator, jnp.asarray(function(points)), domain)
        errors.append(largest(rate, exact(points)))
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.2, errors


def test_a_recurrence_is_the_cell_of_equinox(key):
    operator, u = (
        built(lambda: ide.contrib.GatedRecurrence(WIDTH, key=key)),
        state(tokens=TOKENS),
    )
    cell = eqx.filter_eval_shape(lambda: eqx.nn.GRUCell(WIDTH, WIDTH, key=key))
    weights = operator.weight.T, operator.memory.T, operator.bias, jnp.zeros(WIDTH)
    names = "weight_ih", "weight_hh", "bias", "bias_n"
    cell = eqx.tree_at(lambda x: [getattr(x, name) for name in names], cell, weights)

    @jax.jit
    def by_cell(u):
        return jax.lax.scan(lambda s, x: (cell(x, s),) * 2, jnp.zeros(WIDTH), u)[1]

    assert largest(apply(operator, u, UNIFORM), by_cell(u)) < 1e-14
