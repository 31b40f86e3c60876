"""Causal attention to functions on an interval: the integral ends at the query."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import by_hand, derivatives, make_inputs, plain
from equation.problems import apply, made
from helpers import WIDTH, fast_first, largest, make_block, random_state
from scipy.integrate import simpson

import ide_transformer as ide
from ide_transformer.equation import Domains
from ide_transformer.equation.operators.quadrature.blocks import Blocks, Span, Stream
from ide_transformer.equation.operators.quadrature.integrate import fused_mean, prepare
from ide_transformer.equation.operators.quadrature.token_mean import token_mean
from ide_transformer.integration import Discretization, TokenMarch


GRIDS = {"uniform": lambda s: s, "clustered": lambda s: s + np.sin(2 * np.pi * s) / 8}
KINDS = ["dense", "blocks", "stream", "fused"]


def integral(kind, query, key, value, domain):
    """The causal integral in one of its forms, several blocks where there are blocks."""
    if kind == "fused":
        inputs = (x[None] for x in (query, key, value))
        return fused_mean(*inputs, domain, ide.Volterra(), implementation="xla")[0]
    tokens = domain.num_tokens
    size = {"dense": tokens, "blocks": 7, "stream": 5}[kind]
    spans = (Span(a, min(a + size, tokens), 0, tokens) for a in range(0, tokens, size))
    quadrature = Blocks(ide.Volterra(), tuple(spans))
    if kind == "stream":
        quadrature = Stream(ide.Volterra(), size, False)
    integrand, restore = prepare(query, key, value, domain, None)
    places = ide.TokenDomain(domain.points)
    return restore(token_mean(integrand, Domains(places, places), quadrature).mean)


compiled = eqx.filter_jit(integral)


def smooth_inputs(x):
    """Queries, keys and values that are smooth functions on the interval."""
    waves = np.stack([np.ones_like(x), np.sin(2 * x), np.cos(3 * x)], -1)
    maps = np.random.default_rng(0).normal(size=(3, 3, 8))
    return tuple(jnp.asarray((waves @ m).reshape(-1, 2, 4)) for m in maps)


def exact(x):
    """By Gauss–Legendre on `[0, x_i]` for each query."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    means = []
    for end in x:
        inputs = smooth_inputs(np.append(end * (nodes + 1) / 2, end))
        order = np.append((nodes + 1) / 2, 2.0)
        weights_here = np.append(weights, 0)
        means.append(by_hand(inputs, ide.Volterra(), weights=weights_here, positions=order)[-1])
    return np.stack(means)


RULES = {"trapezoid": (ide.TokenDomain.trapezoid, 2), "simpson": (ide.TokenDomain.simpson, 4)}


@pytest.mark.parametrize(
    ("kind", "rule"), fast_first(2, [(k, r) for r in RULES for k in KINDS])
)
@pytest.mark.parametrize("grid", GRIDS)
def test_causal_integrals_converge_at_the_order_of_the_rule(grid, kind, rule):
    """At the same points of all grids, of which the least is after the first gaps."""
    make, order = RULES[rule]
    # Fewer points where the fused form has the precision of float32.
    numbers = np.array([16, 24, 32] if kind == "fused" else [16, 32, 64])
    places = GRIDS[grid](np.linspace(0, 1, 5))
    errors = []
    for n in numbers:
        x = GRIDS[grid](np.linspace(0, 1, n + 1))
        domain = made(make, jnp.asarray(x))
        mean = np.asarray(compiled(kind, *smooth_inputs(x), domain))
        assert largest(mean[0], smooth_inputs(x)[2][0]) < 1e-6
        errors.append(np.abs(mean[:: n // 4] - exact(places))[1:].max())
    observed = -np.polyfit(np.log(numbers), np.log(errors), 1)[0]
    assert abs(observed - order) < 0.2


@pytest.mark.parametrize("points", [3, 4, 9, 12])
def test_an_integral_up_to_a_point_is_that_of_the_points_until_there(points):
    """Its weights are those of Simpson's rule on these points alone."""
    x = np.linspace(0, 1, points) + np.linspace(0, 1, points) ** 1.5
    domain = made(ide.TokenDomain.simpson, jnp.asarray(x))
    values = np.exp(x)
    of_all, end_weights, ends = map(
        np.asarray, (domain.weights, domain.end_weights, domain.ends)
    )
    assert of_all @ values == pytest.approx(simpson(values, x=x), rel=1e-14)
    for end in range(2, points):
        weights = of_all[: end + 1].copy()
        for lag in range(3):
            weights[end - lag] = end_weights[lag, end - lag]
            assert ends[lag, end - lag] == x[end]
        here = simpson(values[: end + 1], x=x[: end + 1])
        assert weights @ values[: end + 1] == pytest.approx(here, rel=1e-14)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS[:3])
def test_derivatives_with_end_weights(kind):
    """Against the same mathematics in plain operations, in the weights too."""
    tokens = 17
    draw = np.random.default_rng(1)
    log_weights = [jnp.asarray(draw.normal(size=tokens)) for _ in range(2)]
    points = jnp.asarray(np.cumsum(draw.uniform(0.1, 1, tokens)))[:, None]
    primals = *make_inputs(tokens), *log_weights
    # Along one of the weights, too, where nothing else changes.
    alone, rest = log_weights[0], (*primals[:3], primals[4])

    def ours(*x):
        weights, ends = map(jnp.exp, x[3:])
        domain = ide.TokenDomain(points, weights, ends=points.T, end_weights=ends[None])
        return integral(kind, *x[:3], domain)

    def theirs(*x):
        own, past = np.eye(tokens, dtype=bool), np.tri(tokens, dtype=bool)
        weights, ends = (jnp.broadcast_to(y, own.shape) for y in x[3:])
        return plain(*x[:3], jnp.where(own, ends, weights), jnp.asarray(past))

    found, expected = (
        (derivatives(f, *primals), derivatives(lambda x, f=f: f(*rest[:3], x, rest[3]), alone))
        for f in (ours, theirs)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert largest(a, b) < 1e-12


def test_end_weights_count_in_causal_attention_only(key):
    domain = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6))
    without = ide.TokenDomain(domain.points, domain.weights)
    for causal, same in ((True, False), (False, True)):
        attention, _ = make_block(key, causal=causal)
        rates = [apply(attention, random_state(), x) for x in (domain, without)]
        assert (largest(*rates) == 0) is same


@pytest.mark.heavy
def test_tokens_marched_one_after_the_other_have_the_same_ends(key):
    """And the same weights: the tokens read first had equal ones."""
    domain = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6) ** 2)
    equation = ide.Equation(ide.Tied(make_block(key), num_intervals=2), ide.Free(), domain)
    u0 = random_state()
    whole = ide.solve(equation, u0, solver=ide.RK4()).u1
    state = jax.ShapeDtypeStruct((1, WIDTH), u0.dtype)
    march = TokenMarch(equation, Discretization(ide.RK4()), state)
    first, cache = eqx.filter_jit(march.prefill)(u0[:3])
    rest, _ = eqx.filter_jit(march.extend)(u0[3:], 3, cache)
    assert largest(jnp.concatenate([first, rest]), whole) < 1e-13


def test_tokens_that_are_not_in_order_are_not_marched_one_after_the_other(key):
    domain = ide.TokenDomain(jnp.array([[0.0], [2.0], [1.0]]))
    equation = ide.Equation(ide.Tied(make_block(key), 1), ide.Free(), domain)
    with pytest.raises(ide.InputError, match="not known to be in increasing order"):
        TokenMarch(equation, Discretization(ide.RK4()), jax.ShapeDtypeStruct((1, WIDTH), float))


def test_padding_has_no_end():
    domain = ide.TokenDomain.trapezoid(jnp.linspace(0, 1, 6))
    padded = domain.padded(jnp.arange(6) < 4)
    assert padded.end_weights[0, 4:].tolist() == padded.weights[4:].tolist() == [0, 0]


@pytest.mark.parametrize("bad", [-1.0, jnp.nan])
def test_a_weight_computed_in_a_program_is_no_silent_zero(bad):
    """A negative one passed for padding."""

    @jax.jit
    def log(weights):
        return ide.TokenDomain(jnp.zeros((2, 1)), weights).log_weights

    assert jnp.isnan(log(jnp.array([1.0, bad]))).tolist() == [False, True]
