"""Random sequences are what their definitions say, and no part has a sample of another;
the shortest ways through a maze are marked."""

import itertools

import numpy as np
import pytest
from scipy.sparse import coo_array, csgraph

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.tasks import UNCOUNTED


def held_out(task):
    return next(task.held_out(1024))


def hops_of(word, hops, i):
    """One hop after the other, as the definition reads."""
    for _ in range(hops):
        earlier = [j for j in range(1, i + 1) if word[j - 1] == word[i]]
        if not earlier:
            return -1
        i = max(earlier)
    return word[i]


@pytest.mark.parametrize("hops", [2, 4])
def test_hops_are_those_of_the_definition(hops):
    task = contrib.PHop(20, alphabet=4, hops=hops)
    batch = task.batch(0, 16, 0)
    expected = [[hops_of(list(w), hops, i) for i in range(20)] for w in batch.inputs]
    assert (batch.targets == expected).all()
    assert (batch.inputs[:, 1:] != batch.inputs[:, :-1]).all()


@pytest.mark.parametrize("swaps", [False, True])
def test_words_are_products_of_matrices(swaps):
    degree = 5
    task = contrib.WordProblem(9, (3, 9), degree=degree, swaps=swaps)
    elements = np.array(list(itertools.permutations(range(degree))))
    # (g h)(x) = g(h(x)) is the product of matrices with a one at [g(x), x].
    matrices = np.eye(degree, dtype=int)[:, elements].transpose(1, 0, 2)
    batch = task.batch(0, 16, 0)
    lengths = (batch.targets >= 0).sum(axis=1)
    assert lengths.min() >= 3 and lengths.max() <= 9 and len(set(lengths)) > 3
    # A swap leaves three letters where they are.
    fixed_letters = np.trace(matrices[batch.inputs], axis1=2, axis2=3)
    assert (fixed_letters == 3).all() == swaps
    for word, targets, length in zip(batch.inputs, batch.targets, lengths, strict=True):
        product = np.eye(degree, dtype=int)
        for i in range(length):
            product = product @ matrices[word[i]]
            assert (matrices[targets[i]] == product).all()
        assert (targets[length:] == -1).all()


def test_a_mesh_gives_the_longest_word():
    task = contrib.WordProblem(17, (2, 16), (17, 17))
    short = task.on(ide.Mesh(tokens=5))
    batch = short.batch(0, 64, 0)
    assert batch.inputs.shape == (64, 5)
    assert set((batch.targets >= 0).sum(axis=1)) == {2, 3, 4, 5}
    assert next(short.held_out(8)).inputs.shape == (8, 5)
    assert task.with_tokens(1).lengths == (1, 1)
    with pytest.raises(ide.InputError, match=r"tokens=6: .*ColumnAddition"):
        contrib.ColumnAddition(40, (1, 6)).with_tokens(6)


def test_parity_counts_the_ones():
    for inputs, targets in zip(*held_out(contrib.Parity(13, (1, 8), (9, 12))), strict=True):
        written = "".join(map(str, inputs))
        bits = written[: written.index("2")]
        assert 9 <= len(bits) <= 12 and set(bits) <= set("01")
        assert set(written[len(bits) + 1 :]) <= {"3"}
        expected = [-1] * len(written)
        expected[len(bits)] = bits.count("1") % 2
        assert targets.tolist() == expected


@pytest.mark.parametrize("options", [{}, {"base": 3, "start": True}])
def test_sums_in_columns_are_right(options):
    task = contrib.ColumnAddition(14, (1, 4), (3, 6), **options)
    for row, goal in zip(*held_out(task), strict=True):
        inputs, targets = row[task.start :].tolist(), goal[task.start :].tolist()
        end = inputs.index(task.base)
        assert 3 <= end // 2 <= 6 and end % 2 == 0
        digits = {"a": inputs[:end:2], "b": inputs[1:end:2], "c": targets[1 : end + 1 : 2]}
        digits["c"] = [*digits["c"][: end // 2], targets[end]]
        a, b, c = (sum(d * task.base**i for i, d in enumerate(x)) for x in digits.values())
        assert a + b == c and max(digits["c"]) < task.base
        assert set(inputs[end + 1 :]) <= {task.base + 1}
        assert set(targets[:end:2] + targets[end + 1 :]) <= {-1}


def test_no_part_has_an_instance_of_another_one():
    """Of 65,536 words of 16 bits, of which parts drawn apart would share hundreds."""
    task = contrib.Parity(17, (16, 16))
    parts = {part: held_out_contents(task, part) for part in task.parts}
    learned = set[bytes]()
    for seed, step in itertools.product((0, 1), range(50)):
        learned.update(task.contents(task.batch(step, 32, seed)))
    assert not parts["validation"] & parts["test"]
    assert not learned & (parts["validation"] | parts["test"])
    assert min(map(len, parts.values())) > 500
    assert task.repeated() == dict.fromkeys(task.parts, (0, 1024))
    assert len(next(task.held_out(2000)).targets) == 1024


def held_out_contents(task, part):
    return {x for batch in task.held_out(64, part=part) for x in task.contents(batch)}


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
    both = task, contrib.Maze(7)
    trained, plain = (x.draw(3, np.random.default_rng(0), held_out=False) for x in both)
    np.testing.assert_array_equal(trained.inputs, plain.inputs)


def test_a_way_that_no_maze_has_is_refused():
    with pytest.raises(ide.InputError, match=r"^held_out_way=\[33, 40\]"):
        contrib.Maze(held_out_way=(33, 40)).draw(1, np.random.default_rng(0), held_out=True)
