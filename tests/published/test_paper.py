"""The formulas of Tai, Liu, Li and Chan (arXiv 2510.03989) as they print them, in NumPy: those
of docs/reference/paper.md that no other test has."""

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
from equation.problems import apply, project
from helpers import built, largest

import ide_transformer as ide


TOKENS, WIDTH, HEADS = 5, 6, 3
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.3, 0.7])
MEAN, DEVIATION = 0.5, 2.0
KEY = jax.random.key(0)
S1 = ide.Sphere(gain=DEVIATION, bias=MEAN)


def state(seed=0, tokens=TOKENS, width=WIDTH):
    return np.random.default_rng(seed).normal(size=(tokens, width))


def make_attention(seed=0, **options):
    return built(lambda: ide.Attention(WIDTH, HEADS, key=KEY, **options), seed=seed)


def make_integral(seed):
    return built(lambda: ide.FeatureIntegral(WIDTH, key=KEY), seed=seed)


def arrays(linear):
    return np.asarray(linear.weight), np.asarray(linear.bias)


def attention(operator, u, weights=None, seen=None):
    """`∫_Ωh ⟨γ(x,·,h), V(·,y,h)⟩_Ωx dh`, one h and one x after the other: V has the output map
    in it, `W^V(ξ,y,h) = ∫ W^V_h(ξ,η) W^O_h(η,y) dη`."""
    weights = np.ones(len(u)) if weights is None else weights
    seen = np.ones((len(u), len(u))) if seen is None else seen
    (w_o, b_o), size = arrays(operator.output), WIDTH // operator.heads
    total = np.zeros_like(u) + b_o
    for h in range(operator.heads):
        part = slice(h * size, (h + 1) * size)
        maps = [arrays(x) for x in (operator.query, operator.key, operator.value)]
        (w_q, b_q), (w_k, b_k), (w_v, b_v) = ((w[:, part], b[part]) for w, b in maps)
        w_v, b_v = w_v @ w_o[part], b_v @ w_o[part]
        q, k, v = u @ w_q + b_q, u @ w_k + b_k, u @ w_v + b_v
        for x in range(len(u)):
            domain = np.flatnonzero(seen[x])
            kernel = np.array([np.exp(q[x] @ k[z] / np.sqrt(size)) for z in domain])
            gamma = kernel / (weights[domain] @ kernel)
            total[x] += (weights[domain] * gamma) @ v[domain]
    return total


def feature_integral(operator, u):
    """`⟨W(·,y), u(x,·)⟩_Ωy + b(y)`, one y after the other."""
    weight, bias = arrays(operator.map)
    terms = [(u * weight[:, y]).sum(-1) + bias[y] for y in range(WIDTH)]
    return np.stack(terms, axis=-1)


def onto_s1(v):
    """Theorem 3.1."""
    alpha = v.mean(-1, keepdims=True)
    beta = ((v - alpha) ** 2).mean(-1, keepdims=True)
    return (v - alpha) / np.sqrt(beta) * DEVIATION + MEAN


CAUSAL = np.array([0.3, 2.0, 0.0, 5.0, 1.1])
GRID = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]], float)
APART = np.linalg.norm(GRID[:, None] - GRID[None, :], axis=-1)


@pytest.mark.parametrize(
    ("options", "points", "weights", "seen"),
    [
        # Over what is not later, at points in any order.
        ({"causal": True}, CAUSAL, WEIGHTS, CAUSAL[None, :] <= CAUSAL[:, None]),
        # Patches, points of the plane in any order, all of them or those that are near.
        ({}, GRID, None, None),
        ({"window": 1.5}, GRID, None, APART < 1.5),
    ],
)
def test_attention_is_an_integral(options, points, weights, seen):
    operator, u = make_attention(**options), state(tokens=len(points))
    expected = attention(operator, u, weights, seen)
    order = np.random.default_rng(1).permutation(len(u))
    points = points.reshape(len(u), -1)[order]
    mass = None if weights is None else weights[order]
    domain = ide.TokenDomain(*jax.device_put((points, mass)))
    assert largest(apply(operator, u[order], domain), expected[order]) < 1e-12


def layers_of(number, depth=2):
    """An attention and integrals over features, others in each layer; all layers stacked."""
    layers = [
        (make_attention(n), *(make_integral(10 * n + j) for j in range(number)))
        for n in range(depth)
    ]
    stacked = jax.tree.map(lambda *x: jax.device_put(np.stack(x)), *layers)
    return layers, ide.PiecewiseConstant(stacked)


def test_the_rate_is_the_sum_of_the_terms_and_of_what_keeps_the_constraint():
    """`∂I_S1` takes away what is normal to S1: the mean, and the part along `u - σ1`."""
    layers, control = layers_of(2)
    u, domain = onto_s1(state()), ide.TokenDomain.uniform(TOKENS)
    block = layers[1]
    total = attention(block[0], u) + sum(feature_integral(x, u) for x in block[1:])
    normal = u - MEAN
    along = (total * normal).sum(-1, keepdims=True) / (normal**2).sum(-1, keepdims=True)
    tangential = total - total.mean(-1, keepdims=True) - along * normal
    for constraint, expected in ((ide.Free(), total), (S1, tangential)):
        equation = ide.Equation(control, constraint, domain)
        rate = eqx.filter_jit(equation.vector_field)(1.3, u)
        assert largest(rate, expected) < 1e-12


def test_projections_as_printed():
    """None of the points of the set around the projection is nearer."""
    v, moves = state(), 1e-3 * np.random.default_rng(1).normal(size=(500, TOKENS, WIDTH))
    for constraint, printed in ((S1, onto_s1), (ide.Nonnegative(), lambda v: np.maximum(v, 0))):
        found = np.asarray(project(constraint, v))
        assert largest(found, printed(v)) < 1e-12
        distances = np.linalg.norm(printed(found + moves) - v, axis=-1)
        assert (distances > np.linalg.norm(found - v, axis=-1) - 1e-14).all()


def test_no_state_is_on_both_sets():
    """The least entry of a state of mean 0 and variance 1 is at most `-1/sqrt(n-1)`."""
    least = 1 / np.sqrt(WIDTH - 1)
    tokens = np.concatenate([np.eye(1, WIDTH), state(tokens=200)])
    residual = ide.Nonnegative().residual(project(ide.Sphere(), tokens))
    assert abs(residual[0] - least) < 1e-12 and residual.min() > least - 1e-12


def one_step(solver, equation, u, h):
    """A step of length h in the second layer."""
    terms = equation.terms_of(1)
    return eqx.filter_jit(lambda u: ide.single_step(solver, terms, 1.0, 1.0 + h, u))(u)


@pytest.mark.parametrize("scheme", [ide.PaperSplitting, ide.ConsistentPaperSplitting])
def test_the_sub_steps_of_the_paper(scheme):
    """M = 4 + J, with a step that is not one: those of the feed-forward are projected on S2,
    the last of them is not; in the consistent variant they are twice as long and none is."""
    layers, control = layers_of(3)
    (operator, *integrals), u0, h = layers[1], onto_s1(state()), 0.3
    printed = scheme is ide.PaperSplitting
    attended = onto_s1(u0 + h * attention(operator, u0))
    u = attended
    for j, integral in enumerate(integrals, 1):
        u = u + (h if printed else 2 * h) * feature_integral(integral, u)
        u = np.maximum(u, 0) if printed and j < 3 else u
    expected = onto_s1((attended + u) / 2)
    equation = ide.Equation(control, S1, ide.TokenDomain.uniform(TOKENS))
    assert largest(one_step(scheme(), equation, u0, h), expected) < 1e-12


def test_sequential_and_parallel_splitting():
    """With Heun in the sub-steps, where parallel splitting is no longer unsplit Euler."""
    layers, control = layers_of(2)
    sequential, u0, h = state(), state(), 0.3
    rates = [lambda u: attention(layers[1][0], u)]
    rates += [lambda u, x=x: feature_integral(x, u) for x in layers[1][1:]]

    def heun(rate, u, h):
        first = h * rate(u)
        return u + (first + h * rate(u + first)) / 2

    for rate in rates:
        sequential = heun(rate, sequential, h)
    parallel = np.mean([heun(rate, u0, 3 * h) for rate in rates], axis=0)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))
    for scheme, expected in ((ide.LieTrotter, sequential), (ide.ParallelSplitting, parallel)):
        assert largest(one_step(scheme(diffrax.Heun()), equation, u0, h), expected) < 1e-12
