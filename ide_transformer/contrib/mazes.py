"""Mazes: mark the shortest way between two cells of a grid."""

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


# Kinds of cells; in the inputs WAY marks the ends only.
WALL, FREE, WAY = range(3)
# The numbers of free neighbours of a room in which an end may lie.
_PASSAGES = {"anywhere": (1, 2, 3, 4), "corridors": (2,), "dead_ends": (1,)}
# The most rooms of a hall along each axis.
_HALL = 4
# How many first ends to try in a maze, and mazes for a sample.
_ENDS = 8
_MAZES = 100

_ODD = Bound("odd, since a wall is all around", lambda side: side % 2 == 1)
Side = Annotated[int, at_least(5), _ODD]
Ends: TypeAlias = Literal["anywhere", "corridors", "dead_ends"]
Cells: TypeAlias = tuple[PositiveInt, PositiveInt]


@checked_dataclass
class Maze(AbstractDrawn):
    """Mark the shortest way between two cells of a maze. Every second cell along each axis is a
    room. The passages between rooms are a random tree, drawn by a walk that turns back only at
    dead ends. So there is a single way, and it is long. Removed walls make loops.

    `inputs: [samples, side, side, 3]`: each cell one-hot: wall, free, or one of the two ends.
    `targets: [samples, side²]`, row by row: 2 for a cell on the way, ends included, 1 for other
    free cells; walls have no target. If there are several shortest ways, all are marked, so the
    inputs determine the targets.

    In a tree, filling dead ends one after another leaves the way, so information has to travel
    far. Source: Schwarzschild et al., "Can you learn an algorithm?", 2021, arXiv 2106.04537.
    Networks that solve larger mazes can fail on mazes with other ends or with loops: Knutson et
    al., 2024, arXiv 2410.03020.

    The `tokens` of a mesh set the side of all samples, so a schedule of meshes trains on
    several sides.

    **Arguments:**

    - `side`: cells along each axis, odd; the outermost are walls. There are few mazes of side 5
      and 7, so held-out mazes are also seen in training; see `AbstractDrawn`.
    - `way`: the least and the most cells on a shortest way, ends included; `None` for any. The
      number of cells is odd. One end is uniform in the rooms where such a way begins, the
      other in the rooms where it ends.
    - `ends`: the rooms of both ends: "anywhere", in "corridors" (two free neighbours), or at
      "dead_ends" (one).
    - `removed`: the probability with which a wall between two rooms is removed.
    - `halls`: the number of rectangles of 2 to 4 rooms along each axis without walls inside.
    - `held_out_side`, `held_out_way`, …: the options of held-out samples; default: as in
      training.

    **Raises:** `InputError` for a way that no maze has, or too few.
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
            side = self.get_option("side", held_out)
            least, most = self.get_option("way", held_out) or (3, 3)
            longest = 2 * (side // 2) ** 2 - 1
            if max(3, least + (least % 2 == 0)) > min(most, longest):
                raise InputError(
                    f"{'held_out_way' if held_out else 'way'}={[least, most]} must include an "
                    f"odd number from 3 to {longest}: the cells of ways on side {side}."
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
        side = self.get_option("side", held_out)
        mazes = np.full((number, side**2), WALL, np.int8)
        ways = np.full((number, side**2), UNCOUNTED, np.int32)
        for cells, targets in zip(mazes, ways, strict=True):
            free, first, last = self._draw_maze(random, held_out)
            from_first = _steps_from(first, free)
            is_on_way = from_first + _steps_from(last, free) == from_first[last]
            cells[free.ravel()] = FREE
            cells[[first, last]] = WAY
            targets[free.ravel()] = FREE
            targets[free.ravel() & is_on_way] = WAY
        inputs = np.eye(3, dtype=np.float32)[mazes]
        return Batch(inputs.reshape(number, side, side, 3), ways)

    def _draw_maze(
        self, random: np.random.Generator, held_out: bool
    ) -> tuple[np.ndarray, int, int]:
        """The mask of free cells, `[side, side]`, and the row-major indices of the ends."""
        side, way, ends, removed, halls = (
            self.get_option(name, held_out)
            for name in ("side", "way", "ends", "removed", "halls")
        )
        rooms = _rooms(side)
        for _ in range(_MAZES):
            pair = rooms[random.choice(len(rooms), 2, replace=False)]
            free = _draw_tree(side, int(pair[0]), random)
            if removed:
                for walls in (free[1::2, 2:-1:2], free[2:-1:2, 1::2]):
                    walls |= random.random(walls.shape) < removed
            for _ in range(halls):
                _clear_hall(free, random)
            if way is not None or ends != "anywhere":
                passages = sum(free.ravel()[rooms + x].astype(int) for x in _directions(side))
                allowed = rooms[np.isin(passages, _PASSAGES[ends])]
                pair = _draw_ends(way or (3, side**2), allowed, free, random)
            if len(pair):
                return free, int(pair[0]), int(pair[1])
        raise InputError(
            f"Maze: none of {_MAZES} {'held-out ' if held_out else ''}mazes with side={side}, "
            f"removed={removed} and halls={halls} has way={way} and ends={ends}; allow "
            "more of them."
        )


def _rooms(side: int) -> np.ndarray:
    """The row-major indices of rooms."""
    return np.arange(side**2).reshape(side, side)[1::2, 1::2].ravel()


def _directions(side: int) -> tuple[int, int, int, int]:
    """The differences between the index of a cell and the indices of its neighbours."""
    return 1, side, -1, -side


def _draw_tree(side: int, root: int, random: np.random.Generator) -> np.ndarray:
    """The mask of free cells of a maze without loops."""
    free = [False] * side**2
    # A step may look into a row below the last.
    new = [False] * (side**2 + side)
    for room in _rooms(side).tolist():
        new[room] = True
    free[root] = True
    new[root] = False
    walk = [root]
    directions = _directions(side)
    while walk:
        room = walk[-1]
        ahead = [step for step in directions if new[room + 2 * step]]
        if not ahead:
            walk.pop()
            continue
        step = ahead[random.integers(len(ahead))]
        next_room = room + 2 * step
        free[room + step] = free[next_room] = True
        new[next_room] = False
        walk.append(next_room)
    return np.array(free).reshape(side, side)


def _clear_hall(free: np.ndarray, random: np.random.Generator) -> None:
    rooms = len(free) // 2
    size = random.integers(2, min(rooms, _HALL) + 1, 2)
    first = random.integers(0, rooms - size + 1)
    first_row, first_column = 2 * first + 1
    end_row, end_column = 2 * (first + size)
    free[first_row:end_row, first_column:end_column] = True


def _steps_from(start: int, free: np.ndarray) -> np.ndarray:
    """The fewest steps from a cell to each free cell, row by row; -1 at walls."""
    new = free.ravel().tolist()
    steps = [-1] * len(new)
    new[start] = False
    steps[start] = 0
    reached = [start]
    directions = _directions(len(free))
    for cell in reached:
        for neighbour in [cell + x for x in directions if new[cell + x]]:
            new[neighbour] = False
            steps[neighbour] = steps[cell] + 1
            reached.append(neighbour)
    return np.array(steps)


def _draw_ends(
    way: Cells, allowed: np.ndarray, free: np.ndarray, random: np.random.Generator
) -> tuple[int, ...]:
    """Draws two of the allowed cells with a way of this length; `()` if a few trials fail."""
    least, most = way
    for first in random.permutation(allowed)[:_ENDS].tolist():
        cells = 1 + _steps_from(first, free)[allowed]
        last = allowed[(max(least, 3) <= cells) & (cells <= most)]
        if len(last):
            return first, int(random.choice(last))
    return ()
