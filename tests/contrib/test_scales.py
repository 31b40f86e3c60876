"""Distances of heads, and heads on a coarser grid, by NumPy."""

import equinox as eqx
import jax
import numpy as np

import ide_transformer as ide
from ide_transformer import contrib
from tests.helpers import HEADS, WIDTH, largest
from tests.layered_models import (
    CONTEXT,
    HELD_OUT,
    LAYERS,
    layer_by_layer,
    model_of,
    states_by_hand,
)


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
