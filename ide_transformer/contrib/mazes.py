"""Mazes: find the way between two cells of a grid."""

from typing import Annotated, Any

import numpy as np

from ide_transformer.arguments import Bound, at_least
from ide_transformer.models import OperatorModel
from ide_transformer.tasks import (
    UNCOUNTED,
    AbstractDrawn,
    Batch,
    InstanceCrossEntropy,
    checked_dataclass,
)


# Kinds of cells; the third is an end of the way in the inputs, all of the way in the targets.
WALL, FREE, WAY = range(3)
# From a room to its neighbours, along the rows and along the columns.
_STEPS = (0, 1), (1, 0), (0, -1), (-1, 0)

_ODD = Bound("odd, since a wall is all around", lambda side: side % 2 == 1)
Side = Annotated[int, at_least(5), _ODD]


@checked_dataclass
class Maze(AbstractDrawn):
    """Mark the way between two cells of a maze. The passages are a random tree, so there is one
    way, drawn by a walk that turns back only at dead ends: passages are long.

    `inputs: [samples, side, side, 3]`: for each cell one-hot: wall, free, or one of the two
    ends. `targets: [samples, side²]`, row by row: 1 for a free cell beside the way, 2 for a
    cell on it, ends included; walls do not count.

    The way is what remains when dead ends are filled one after another, so information has to
    travel far. Source: Schwarzschild et al., "Can you learn an algorithm?", 2021, arXiv
    2106.04537.

    **Arguments:**

    - `side`: cells along each axis in training, odd; the outermost are walls.
    - `held_out_side`: the same for held-out samples; default: `side`. There are few mazes of
      side 5 and 7, so held-out ones are also learned; see `AbstractDrawn`.
    """

    model = OperatorModel
    loss = InstanceCrossEntropy()
    sized_by_context = False

    side: Side = 9
    held_out_side: Side | None = None

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": (self.side, self.side), "channels": 3}

    @property
    def tokens_per_sample(self) -> int:
        return self.side**2

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        side = self.given("side", held_out)
        # Rooms are every second cell along each axis.
        rooms = side // 2
        mazes = np.full((number, side, side), WALL)
        ways = np.empty_like(mazes, np.int32)
        for cells, targets in zip(mazes, ways, strict=True):
            ends = [divmod(int(n), rooms) for n in random.choice(rooms**2, 2, replace=False)]
            # The walk begins at one end; `before` leads back there from any room.
            before = {ends[0]: ends[0]}
            walk = [ends[0]]
            cells[_between(ends[0], ends[0])] = FREE
            while walk:
                row, column = room = walk[-1]
                around = [(row + i, column + j) for i, j in _STEPS]
                new = [x for x in around if x not in before and min(x) >= 0 and max(x) < rooms]
                if not new:
                    walk.pop()
                    continue
                chosen = new[random.integers(len(new))]
                before[chosen] = room
                cells[_between(room, chosen)] = cells[_between(chosen, chosen)] = FREE
                walk.append(chosen)
            targets[...] = np.where(cells == WALL, UNCOUNTED, FREE)
            room = ends[1]
            while room != ends[0]:
                targets[_between(room, room)] = targets[_between(room, before[room])] = WAY
                room = before[room]
            for end in ends:
                cells[_between(end, end)] = targets[_between(end, end)] = WAY
        return Batch(np.eye(3, dtype=np.float32)[mazes], ways.reshape(number, -1))


def _between(room: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """The cell between two neighbouring rooms, or the cell of one room."""
    return room[0] + other[0] + 1, room[1] + other[1] + 1
