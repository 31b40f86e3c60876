"""Mazes: find the way between two cells of a grid."""

import dataclasses
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from ide_transformer.arguments import Bound, Fraction, NonNegativeInt, PositiveInt, at_least
from ide_transformer.errors import InputError
from ide_transformer.models import OperatorModel
from ide_transformer.tasks import (
    UNCOUNTED,
    AbstractDrawn,
    Batch,
    InstanceCrossEntropy,
    checked_dataclass,
    one_number,
)


# Kinds of cells; the third is an end of the way in the inputs, all of the way in the targets.
WALL, FREE, WAY = range(3)
# The numbers of free cells beside a room in which an end may lie.
_PASSAGES = {"anywhere": (1, 2, 3, 4), "corridors": (2,), "dead_ends": (1,)}
# The most rooms of a hall along each axis.
_HALL = 4
# First ends that are tried in a maze, and mazes that are tried for a sample.
_ENDS = 8
_MAZES = 100

_ODD = Bound("odd, since a wall is all around", lambda side: side % 2 == 1)
Side = Annotated[int, at_least(5), _ODD]
Ends: TypeAlias = Literal["anywhere", "corridors", "dead_ends"]
Cells: TypeAlias = tuple[PositiveInt, PositiveInt]


@checked_dataclass
class Maze(AbstractDrawn):
    """Mark the shortest way between two cells of a maze. Rooms are every second cell along each
    axis. The passages between them are a random tree, drawn by a walk that turns back only at
    dead ends, so there is one way, and it is long; walls that are removed make loops.

    `inputs: [samples, side, side, 3]`: for each cell one-hot: wall, free, or one of the two
    ends. `targets: [samples, side²]`, row by row: 1 for a free cell beside the way, 2 for a
    cell on it, ends included; walls do not count. Where several ways are shortest, a cell is on
    the way if it is on any of them, so the inputs determine the targets.

    In a tree the way is what remains when dead ends are filled one after another, so
    information has to travel far. Source: Schwarzschild et al., "Can you learn an algorithm?",
    2021, arXiv 2106.04537. Networks that solve larger mazes can fail on mazes with other ends
    or with loops: Knutson et al., 2024, arXiv 2410.03020.

    Each option has another for held-out samples, `held_out_side` and so on; by default they are
    drawn as in training. The `tokens` of a mesh are the side of all samples, so a schedule of
    meshes trains on several sides.

    **Arguments:**

    - `side`: cells along each axis, odd; the outermost are walls. There are few mazes of side 5
      and 7, so held-out ones are also learned; see `AbstractDrawn`.
    - `way`: the least and the most cells on a shortest way, ends included; `None` for any. The
      number is odd, and one more than the steps of the way. One end is uniform in the rooms
      where such a way begins, the other in the rooms where it ends.
    - `ends`: rooms in which both ends lie: "anywhere", in "corridors" (two free cells beside
      the room), or at "dead_ends" (one).
    - `removed`: the probability with which a wall between two rooms is removed.
    - `halls`: the number of rectangles of 2 to 4 rooms along each axis without walls inside.

    **Raises:** `InputError` for a way that no maze, or hardly any, has.
    """

    model = OperatorModel
    loss = InstanceCrossEntropy()
    sized_by_context = False

    side: Side = 9
    held_out_side: Side | None = None
    way: Cells | None = None
    held_out_way: Cells | None = None
    ends: Ends = "anywhere"
    held_out_ends: Ends | None = None
    removed: Fraction = 0.0
    held_out_removed: Fraction | None = None
    halls: NonNegativeInt = 0
    held_out_halls: NonNegativeInt | None = None

    def __post_init__(self):
        for held_out in (False, True):
            side = self.given("side", held_out)
            least, most = self.given("way", held_out) or (3, 3)
            longest = 2 * (side // 2) ** 2 - 1
            if max(3, least + (least % 2 == 0)) > min(most, longest):
                raise InputError(
                    f"{'held_out_' * held_out}way={[least, most]}: a way on side {side} has an "
                    f"odd number of cells, from 3 to {longest}; give a range with one of them."
                )

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": (self.side, self.side), "channels": 3}

    @property
    def tokens_per_sample(self) -> int:
        return self.side**2

    def with_tokens(self, tokens: int | tuple[int, int]) -> "Maze":
        return dataclasses.replace(self, side=one_number(tokens), held_out_side=None)

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        side = self.given("side", held_out)
        mazes = np.full((number, side**2), WALL, np.int8)
        ways = np.full((number, side**2), UNCOUNTED, np.int32)
        for cells, targets in zip(mazes, ways, strict=True):
            free, first, last = self._maze(random, held_out)
            before = _steps_from(first, free)
            after = _steps_from(last, free)
            on_way = before + after == before[last]
            cells[free.ravel()] = FREE
            cells[[first, last]] = WAY
            targets[free.ravel()] = FREE
            targets[free.ravel() & on_way] = WAY
        inputs = np.eye(3, dtype=np.float32)[mazes]
        return Batch(inputs.reshape(number, side, side, 3), ways)

    def _maze(self, random: np.random.Generator, held_out: bool) -> tuple[np.ndarray, int, int]:
        """Which cells are free, `[side, side]`, and the two ends by their numbers in row-major
        order."""
        side, way, ends, removed, halls = (
            self.given(name, held_out) for name in ("side", "way", "ends", "removed", "halls")
        )
        rooms = _rooms(side)
        for _ in range(_MAZES):
            pair = rooms[random.choice(len(rooms), 2, replace=False)]
            free = _tree(side, int(pair[0]), random)
            if removed:
                _remove_walls(free, removed, random)
            for _ in range(halls):
                _clear_hall(free, random)
            if way is not None or ends != "anywhere":
                beside = sum(free.ravel()[rooms + x].astype(int) for x in _neighbours(side))
                allowed = rooms[np.isin(beside, _PASSAGES[ends])]
                pair = _ends_of(way or (3, side**2), allowed, free, random)
            if len(pair):
                return free, int(pair[0]), int(pair[1])
        raise InputError(
            f"Maze: of {_MAZES} {'held-out ' * held_out}mazes with side={side}, removed="
            f"{removed} and halls={halls} none has way={way} and ends={ends}; ask for less."
        )


def _rooms(side: int) -> np.ndarray:
    """The rooms by the numbers of their cells in row-major order."""
    return np.arange(side**2).reshape(side, side)[1::2, 1::2].ravel()


def _neighbours(side: int) -> tuple[int, int, int, int]:
    """From the number of a cell to the numbers of its neighbours."""
    return 1, side, -1, -side


def _tree(side: int, root: int, random: np.random.Generator) -> np.ndarray:
    """The free cells of a maze without loops."""
    free = [False] * side**2
    # A step beyond the last row still has a number here, and is no room.
    new = [False] * (side**2 + side)
    for room in _rooms(side).tolist():
        new[room] = True
    free[root] = True
    new[root] = False
    walk = [root]
    directions = _neighbours(side)
    while walk:
        room = walk[-1]
        ahead = [step for step in directions if new[room + 2 * step]]
        if not ahead:
            walk.pop()
            continue
        step = ahead[random.integers(len(ahead))]
        chosen = room + 2 * step
        free[room + step] = free[chosen] = True
        new[chosen] = False
        walk.append(chosen)
    return np.array(free).reshape(side, side)


def _remove_walls(free: np.ndarray, share: float, random: np.random.Generator) -> None:
    for between in (free[1::2, 2:-1:2], free[2:-1:2, 1::2]):
        between |= random.random(between.shape) < share


def _clear_hall(free: np.ndarray, random: np.random.Generator) -> None:
    rooms = len(free) // 2
    size = random.integers(2, min(rooms, _HALL) + 1, 2)
    first = random.integers(0, rooms - size + 1)
    (top, left), (bottom, right) = 2 * first + 1, 2 * (first + size)
    free[top:bottom, left:right] = True


def _steps_from(start: int, free: np.ndarray) -> np.ndarray:
    """The fewest steps from a cell to each free cell, row by row; -1 at walls."""
    new = free.ravel().tolist()
    steps = [-1] * len(new)
    new[start] = False
    steps[start] = 0
    reached = [start]
    directions = _neighbours(len(free))
    for cell in reached:
        for neighbour in [cell + x for x in directions if new[cell + x]]:
            new[neighbour] = False
            steps[neighbour] = steps[cell] + 1
            reached.append(neighbour)
    return np.array(steps)


def _ends_of(
    way: Cells, allowed: np.ndarray, free: np.ndarray, random: np.random.Generator
) -> tuple[int, ...]:
    """Two of the allowed cells with a way of this length; none if a few trials find none."""
    least, most = way
    for first in random.permutation(allowed)[:_ENDS].tolist():
        cells = 1 + _steps_from(first, free)[allowed]
        last = allowed[(max(least, 3) <= cells) & (cells <= most)]
        if len(last):
            return first, int(random.choice(last))
    return ()
