"""Distances of heads by NumPy."""

import jax
import numpy as np

import ide_transformer as ide
from ide_transformer import contrib
from tests.helpers import HEADS, largest
from tests.layered_models import (
    CONTEXT,
    HELD_OUT,
    LAYERS,
    layer_by_layer,
    model_of,
    states_by_hand,
)
from tests.published.numpy_blocks import layer_norm, linear, softmax_kernel


def kernel_by_hand(attention, u):
    """`[heads, tokens, others]` of one sample."""
    v = layer_norm(u)
    query, key = (
        linear(x, v).reshape(len(v), HEADS, -1).swapaxes(0, 1)
        for x in (attention.query, attention.key)
    )
    mass = softmax_kernel(query, key) * np.tri(len(v))
    return mass / mass.sum(-1, keepdims=True)


def test_distances_of_heads_are_those_of_numpy():
    """Means over the queries that are no padding."""
    model = model_of("attention")
    mask = np.arange(CONTEXT) < np.array([[8], [6], [8], [5]])
    text = ide.Text(HELD_OUT, mask)
    distances = contrib.distances(model, text)
    assert distances.bands.tolist() == [0, 1, 2, 4]
    apart = np.abs(np.subtract.outer(np.arange(CONTEXT), np.arange(CONTEXT)))
    states = states_by_hand(model, layer_by_layer(range(LAYERS)), text)[:-1:2]
    for layer, u in enumerate(map(np.asarray, states)):
        attention = jax.tree.map(lambda x, n=layer: np.asarray(x)[n], model.control.blocks[0])
        gamma = np.stack([kernel_by_hand(attention, sample) for sample in u], axis=1)
        gamma = gamma * mask[..., None]
        mean = (gamma * apart).sum((1, 2, 3)) / mask.sum()
        assert largest(distances.mean[layer], mean) < 1e-10
        for band, inside in enumerate([apart == 0, apart == 1, apart // 2 == 1, apart > 3]):
            share = gamma[..., inside].sum((1, 2)) / mask.sum()
            assert largest(distances.spectrum[layer, :, band], share) < 1e-10
