"""The shortest ways through a maze are marked, and a Sudoku has one solution."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, csgraph

from ide_transformer import InputError, contrib
from ide_transformer.tasks import UNCOUNTED


def graph_of(free):
    """The graph of neighbouring free cells, by their numbers in row-major order."""
    numbers = np.arange(free.size).reshape(free.shape)
    pairs = []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        are_free = free[first] & free[second]
        pairs += zip(numbers[first][are_free], numbers[second][are_free], strict=True)
    rows, columns = np.array(pairs).T
    return coo_array((np.ones(len(rows)), (rows, columns)), shape=(free.size,) * 2).tocsr()


# Options of held-out mazes.
MAZES = [
    {"side": 5},
    {"side": 15, "ends": "dead_ends", "way": (9, 30)},
    {"side": 29, "halls": 3, "removed": 0.1, "ends": "corridors", "way": (30, 50)},
]
PASSAGES = {"anywhere": {1, 2, 3, 4}, "corridors": {2}, "dead_ends": {1}}


@pytest.mark.parametrize("options", MAZES, ids=str)
def test_the_shortest_ways_are_marked(options):
    task = contrib.Maze(7, **{f"held_out_{name}": x for name, x in options.items()})
    batch = task.draw(20, np.random.default_rng(0), held_out=True)
    side = options["side"]
    kinds = batch.inputs.argmax(-1)
    assert batch.inputs.shape == (20, side, side, 3)
    for cells, targets in zip(kinds, batch.targets, strict=True):
        free = np.flatnonzero(cells)
        first, last = np.flatnonzero(cells == 2)
        graph = graph_of(cells > 0)
        # All rooms are free and, see below, connected; a tree has one edge less than cells.
        assert cells[1::2, 1::2].all()
        loops = graph.nnz + 1 - len(free)
        assert (loops > 0) == bool({"removed", "halls"} & options.keys())
        distances = csgraph.dijkstra(graph, directed=False, indices=[first, last])
        assert np.isfinite(distances[:, free]).all()
        on_way = distances.sum(0) == distances[0, last]
        expected = np.where(cells.ravel() == 0, UNCOUNTED, np.where(on_way, 2, 1))
        np.testing.assert_array_equal(targets, expected)
        least, most = options.get("way", (3, side**2))
        assert least <= distances[0, last] + 1 <= most
        for end in (first, last):
            passages = (graph + graph.T)[[end]].nnz
            assert passages in PASSAGES[options.get("ends", "anywhere")]
    trained, plain = (
        x.draw(3, np.random.default_rng(0), held_out=False) for x in (task, contrib.Maze(7))
    )
    np.testing.assert_array_equal(trained.inputs, plain.inputs)


def test_walls_are_removed_with_their_probability_and_halls_are_rectangles():
    random = np.random.default_rng(0)
    cells = contrib.Maze(29, removed=0.2).draw(20, random, held_out=False).inputs[..., 0] == 0
    removed = cells.sum() - 20 * (2 * 14**2 - 1)
    walls = 20 * (2 * 13 * 14 - (14**2 - 1))
    assert stats.binomtest(int(removed), walls, 0.2).pvalue > 1e-3
    # A post between four rooms is free only in a hall.
    assert not cells[:, 2:-1:2, 2:-1:2].any()
    sizes = set[tuple[int, int]]()
    halls = contrib.Maze(15, halls=1).draw(80, random, held_out=False).inputs[..., 0] == 0
    for free in halls:
        (first_row, first_column), (last_row, last_column) = (
            x(2 * np.argwhere(free[::2, ::2]), axis=0) for x in (np.min, np.max)
        )
        assert free[first_row - 1 : last_row + 2, first_column - 1 : last_column + 2].all()
        sizes.add(((last_row - first_row) // 2 + 2, (last_column - first_column) // 2 + 2))
    assert sizes == {(high, wide) for high in (2, 3, 4) for wide in (2, 3, 4)}


def test_a_way_that_no_maze_has_is_refused():
    with pytest.raises(InputError, match=r"^held_out_way=\[33, 40\]"):
        contrib.Maze(held_out_way=(33, 40)).draw(1, np.random.default_rng(0), held_out=True)


def exact_cover(side, high, wide):
    """A row for each cell, and for each digit in a row, a column and a box: of the variables
    `[row, column, digit]` exactly one is 1."""
    row, column, digit = np.indices((side,) * 3).reshape(3, -1)
    box = row // high * high + column // wide
    pairs = (row, column), (row, digit), (column, digit), (box, digit)
    return np.concatenate([x * side + y == np.arange(side**2)[:, None] for x, y in pairs])


def solution(cover, clues, other=None):
    """The variables of a filled grid by integer programming, one that differs from the `other`;
    `None` where there is none."""
    rules = [LinearConstraint(cover, 1, 1)]
    if other is not None:
        rules.append(LinearConstraint(other, -np.inf, other.sum() - 1))
    result = milp(-clues, constraints=rules, integrality=1, bounds=Bounds(clues, 1))
    return None if result.x is None else np.rint(result.x)


def test_there_is_one_way_to_fill_a_grid():
    side, high, wide, givens = 6, 2, 3, (10, 11)
    task = contrib.Sudoku(side, givens=(side**2, side**2), held_out_givens=givens)
    batch = next(task.held_out(1, samples=1))
    assert batch.inputs.shape == (1, side, side, side + 1) and (batch.inputs.sum(-1) == 1).all()
    cover = exact_cover(side, high, wide)
    for clues, digits in zip(batch.inputs[..., 1:], batch.targets, strict=True):
        assert givens[0] <= clues.sum() <= givens[1]
        filled = solution(cover, clues.ravel())
        np.testing.assert_array_equal(filled.reshape(-1, side).argmax(-1) + 1, digits)
        assert solution(cover, clues.ravel(), filled) is None
    full = task.batch(0, 12, seed=0)
    np.testing.assert_array_equal(full.inputs.argmax(-1).reshape(12, -1), full.targets)
    assert len({digits.tobytes() for digits in full.targets}) == 12
