"""The way through a maze is the only one."""

import numpy as np
import pytest
from scipy.sparse import coo_array, csgraph

from ide_transformer import contrib
from ide_transformer.tasks import UNCOUNTED


def graph_of(free):
    """The graph of neighbouring free cells, by their numbers in row-major order."""
    numbers = np.arange(free.size).reshape(free.shape)
    pairs = []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        both = free[first] & free[second]
        pairs += zip(numbers[first][both], numbers[second][both], strict=True)
    rows, columns = np.array(pairs).T
    return coo_array((np.ones(len(rows)), (rows, columns)), shape=(free.size,) * 2).tocsr()


@pytest.mark.parametrize("side", [5, 15])
def test_the_way_is_the_only_one(side):
    batch = next(contrib.Maze(held_out_side=side).held_out(40, samples=40))
    kinds = batch.inputs.argmax(-1)
    assert batch.inputs.shape == (*kinds.shape, 3) and kinds.shape[1:] == (side, side)
    for cells, targets in zip(kinds, batch.targets, strict=True):
        free = np.flatnonzero(cells)
        first, second = np.flatnonzero(cells == 2)
        graph = graph_of(cells > 0)
        # A tree: connected, with an edge less than cells.
        assert len(free) == ((side // 2) ** 2) * 2 - 1 == graph.nnz + 1
        distances = csgraph.dijkstra(graph, directed=False, indices=[first, second])
        assert np.isfinite(distances[:, free]).all()
        on_way = distances.sum(0) == distances[0, second]
        expected = np.where(cells.ravel() == 0, UNCOUNTED, np.where(on_way, 2, 1))
        np.testing.assert_array_equal(targets, expected)
