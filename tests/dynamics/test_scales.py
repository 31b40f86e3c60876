"""Distances of heads, waves of states and heads on a coarser grid, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, built, largest, random_state
from layered_models import CONTEXT, HELD_OUT, LAYERS, model_of, outputs

import ide_transformer as ide
from ide_transformer import dynamics


DEPTH, SIZE = WIDTH // HEADS, 2


def projections(attention, u):
    v = np.asarray(attention.normalization.project(jnp.asarray(u)))
    maps = attention.query, attention.key, attention.value
    flat = (v @ np.asarray(x.weight) + np.asarray(x.bias) for x in maps)
    return [x.reshape(len(u), HEADS, DEPTH) for x in flat]


def written(attention, gamma, value):
    """`[heads, tokens, features]`."""
    output = np.asarray(attention.output.weight).reshape(HEADS, DEPTH, -1)
    return np.einsum("hxz,zhd,hdf->hxf", gamma, value, output)


def heads_by_hand(attention, u, weights=1.0, causal=True):
    """γ `[heads, tokens, others]` and the outputs of the heads of one sample."""
    query, key, value = projections(attention, u)
    gamma = np.exp(np.einsum("xhd,zhd->hxz", query, key) / np.sqrt(DEPTH)) * weights
    gamma = np.tril(gamma) if causal else gamma
    gamma = gamma / gamma.sum(-1, keepdims=True)
    return gamma, written(attention, gamma, value)


def states_and_attentions(model):
    states = dynamics.costates(model, HELD_OUT, jnp.mean).states
    return np.asarray(states), [model.control(layer)[0] for layer in range(LAYERS)]


def test_distances_and_errors_of_heads_are_those_of_numpy():
    model = model_of()
    states, attentions = states_and_attentions(model)
    found = dynamics.distances(model, HELD_OUT)
    coarse = dynamics.coarse_heads(model, HELD_OUT, SIZE)
    assert found.bands.tolist() == [0, 1, 2, 4]
    apart = np.abs(np.subtract.outer(np.arange(CONTEXT), np.arange(CONTEXT)))
    for layer, attention in enumerate(attentions):
        each = [heads_by_hand(attention, u) for u in states[layer]]
        gamma, fine = (np.stack(x, axis=1) for x in zip(*each, strict=True))
        mean = (gamma * apart).sum((1, 2, 3)) / gamma.sum((1, 2, 3))
        assert largest(found.mean[layer], mean) < 1e-10
        for band, inside in enumerate([apart == 0, apart == 1, apart // 2 == 1, apart > 3]):
            share = gamma[..., inside].sum((1, 2)) / (len(HELD_OUT) * CONTEXT)
            assert largest(found.spectrum[layer, :, band], share) < 1e-10

        each = [on_blocks_by_hand(attention, u) for u in states[layer]]
        smooth, off = (np.stack(x, axis=1) for x in zip(*each, strict=True))
        for name, x, y in (("predicted", smooth, gamma), ("error", off, fine)):
            size = np.sqrt((y**2).sum((1, 2, 3)))
            expected = np.sqrt(((x - y) ** 2).sum((1, 2, 3))) / size
            assert largest(getattr(coarse, name)[layer], expected) < 1e-10


def test_bands_hold_what_rounding_moves():
    """The points are 0.1 apart; rounding makes some of their distances a little smaller than
    the multiple of 0.1 that they should be."""
    domain, number = ide.TokenDomain.midpoint(10), np.arange(10)
    attention = built(lambda: ide.Attention(WIDTH, HEADS, key=jax.random.key(0)))
    model = ide.StateModel(
        domain,
        WIDTH,
        control=ide.Tied((attention,), 1),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
    )
    u = random_state(2, tokens=10)
    found = dynamics.distances(model, u)
    assert largest(found.bands, [0, 0.1, 0.2, 0.4, 0.8]) < 1e-12
    gamma = np.asarray(dynamics.kernel(attention, u, domain))
    apart = np.abs(np.subtract.outer(number, number))
    band = np.searchsorted([1, 2, 4, 8], apart, side="right")
    for x in range(5):
        mass = np.einsum("bxhz,xz->h", gamma, band == x) / (2 * 10)
        assert largest(found.spectrum[0, :, x], mass) < 1e-10


def on_blocks_by_hand(attention, u):
    """The kernel and the outputs where keys and values of the blocks that have ended are their
    means, token by token."""
    query, key, value = projections(attention, u)
    gamma = np.zeros((HEADS, CONTEXT, CONTEXT))
    for x in range(CONTEXT):
        ended = SIZE * ((x + 1) // SIZE)
        seen = [range(z, z + SIZE) for z in range(0, ended, SIZE)]
        seen += [[z] for z in range(ended, x + 1)]
        for h in range(HEADS):
            keys = [key[list(block), h].mean(0) for block in seen]
            mass = [
                len(b) * np.exp(query[x, h] @ k / DEPTH**0.5)
                for b, k in zip(seen, keys, strict=True)
            ]
            for block, part in zip(seen, mass, strict=True):
                gamma[h, x, list(block)] = part / sum(mass) / len(block)
    return gamma, written(attention, gamma, value)


def test_chosen_heads_alone_are_computed_on_blocks_and_see_no_later_token():
    model, chosen = model_of(), np.zeros((LAYERS, HEADS), bool)
    same = dynamics.with_coarse_heads(model, SIZE, chosen)
    assert largest(outputs(same), outputs(model)) < 1e-10
    chosen[1, 2] = True
    states, attentions = states_and_attentions(model)
    fine = np.stack([heads_by_hand(attentions[1], u)[1][2] for u in states[1]])
    off = np.stack([on_blocks_by_hand(attentions[1], u)[1][2] for u in states[1]]) - fine
    changed = dynamics.with_coarse_heads(model, SIZE, chosen)
    rate = changed.control(1)[0](jnp.asarray(states[1]), changed.domain)
    assert largest(rate, attentions[1](jnp.asarray(states[1]), model.domain) + off) < 1e-10
    every = dynamics.with_coarse_heads(model, SIZE, np.ones((LAYERS, HEADS), bool))
    for token in (3, 4):
        other = HELD_OUT.copy()
        other[:, token:] = (other[:, token:] + 1) % 7
        off = outputs(every, other) - outputs(every)
        assert largest(off[:, :token], 0.0) < 1e-12 < largest(off[:, token:], 0.0)
    with pytest.raises(ide.InputError, match=r"4 heads in each of 4 intervals; give \[4, 4\]"):
        dynamics.with_coarse_heads(model, SIZE, chosen[1:])


def test_padding_and_grids_of_two_axes():
    """Padding has no part in a mean; a grid has blocks along both axes."""
    attention = built(lambda: ide.Attention(WIDTH, HEADS, key=jax.random.key(0)))
    u, mask = random_state(1, tokens=6), np.arange(6) < 5
    domain = ide.TokenDomain.uniform(6).padded(mask)
    gamma = dynamics.kernel(attention, u, domain)
    expected, _ = heads_by_hand(attention, np.asarray(u[0]), mask, causal=False)
    assert largest(gamma[0], expected.swapaxes(0, 1)) < 1e-10
    v = np.asarray(u[0, :5])
    pairs = np.stack([v[:2].mean(0), v[:2].mean(0), v[2:4].mean(0), v[2:4].mean(0), v[4]])
    fours = np.stack([*[v[:4].mean(0)] * 4, v[4]])
    parts = v - pairs, pairs - fours, fours - v.mean(0), np.tile(v.mean(0), (5, 1))
    shares = [(x**2).sum() / (v**2).sum() for x in parts]
    assert largest(dynamics.waves(u, domain)[0], shares) < 1e-10

    u = random_state(1, tokens=16)
    square = np.asarray(u[0]).reshape(2, 2, 2, 2, WIDTH)
    means = square.mean((1, 3), keepdims=True)
    whole = square.mean((0, 1, 2, 3), keepdims=True)
    parts = square - means, means - whole + 0 * square, whole + 0 * square
    shares = [(x**2).sum() / (square**2).sum() for x in parts]
    assert largest(dynamics.waves(u, ide.TokenDomain.uniform((4, 4)))[0], shares) < 1e-10
    with pytest.raises(ide.InputError, match="waves: the tokens are not on a grid"):
        dynamics.waves(u, ide.TokenDomain.gauss_legendre(16))
