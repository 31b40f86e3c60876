"""The way through a maze is the only one, and a Sudoku has one solution."""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
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


def exact_cover(side, high, wide):
    """A row for each cell, and for each digit in a row, a column and a box: of the variables
    `[row, column, digit]` exactly one is 1."""
    row, column, digit = np.indices((side,) * 3).reshape(3, -1)
    box = row // high * high + column // wide
    pairs = (row, column), (row, digit), (column, digit), (box, digit)
    return np.concatenate([x * side + y == np.arange(side**2)[:, None] for x, y in pairs])


def solution(cover, given, other=None):
    """The variables of a filled grid by integer programming, one that differs from the `other`;
    `None` where there is none."""
    rules = [LinearConstraint(cover, 1, 1)]
    if other is not None:
        rules.append(LinearConstraint(other, -np.inf, other.sum() - 1))
    found = milp(-given, constraints=rules, integrality=1, bounds=Bounds(given, 1))
    return None if found.x is None else np.rint(found.x)


@pytest.mark.parametrize(
    ("side", "high", "wide", "givens"), [(4, 2, 2, (4, 5)), (6, 2, 3, (10, 11))]
)
def test_there_is_one_way_to_fill_a_grid(side, high, wide, givens):
    task = contrib.Sudoku(side, givens=(side**2, side**2), held_out_givens=givens)
    batch = next(task.held_out(12, samples=12))
    assert (
        batch.inputs.shape == (12, side, side, side + 1) and (batch.inputs.sum(-1) == 1).all()
    )
    cover = exact_cover(side, high, wide)
    for given, digits in zip(batch.inputs[..., 1:], batch.targets, strict=True):
        assert givens[0] <= given.sum() <= givens[1]
        filled = solution(cover, given.ravel())
        np.testing.assert_array_equal(filled.reshape(-1, side).argmax(-1) + 1, digits)
        assert solution(cover, given.ravel(), filled) is None
    full = task.batch(0, 12, seed=0)
    np.testing.assert_array_equal(full.inputs.argmax(-1).reshape(12, -1), full.targets)
    assert len({digits.tobytes() for digits in full.targets}) == 12
