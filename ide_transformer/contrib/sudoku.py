"""Sudoku: fill grids that have one solution."""

import functools as ft
import itertools as it
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from ide_transformer.arguments import PositiveInt
from ide_transformer.errors import InputError
from ide_transformer.models import OperatorModel
from ide_transformer.tasks import AbstractDrawn, Batch, InstanceCrossEntropy, checked_dataclass


# Rows and columns of a box, by the side.
_BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
# Grids from which all samples of a part are made, and the most trials for each.
_GRIDS = 512
_TRIALS = 50


@checked_dataclass
class Sudoku(AbstractDrawn):
    """Fill a Sudoku, which has one solution: each row, column and box has each digit once, and
    some digits are given.

    `inputs: [samples, side, side, side + 1]`: a one-hot digit for each cell, 0 if it is empty.
    `targets: [samples, side²]`: the digits, row by row.

    The fewer digits are given, the more have to be found one after another. 512 random grids
    for training and 512 for held-out samples are varied by permuting digits, and rows and
    columns within the boxes: two million ways for side 6.

    **Arguments:**

    - `side`: 4 with boxes of 2 by 2, 6 with 2 by 3, or 9 with 3 by 3.
    - `givens`: the least and the most digits that are given in training.
    - `held_out_givens`: the same for held-out samples; default: `givens`.

    **Raises:** `InputError` for so few digits that grids with one solution are hardly found.
    """

    model = OperatorModel
    loss = InstanceCrossEntropy()
    sized_by_context = False

    side: Literal[4, 6, 9] = 6
    givens: tuple[PositiveInt, PositiveInt] = (14, 20)
    held_out_givens: tuple[PositiveInt, PositiveInt] | None = None

    def __post_init__(self):
        for held_out in (False, True):
            least, most = self.given("givens", held_out)
            if not least <= most <= self.side**2:
                raise InputError(
                    f"{'held_out_' * held_out}givens={[least, most]}: give the least and the "
                    f"most digits of {self.side**2} cells."
                )

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": (self.side, self.side), "channels": self.side + 1}

    @property
    def tokens_per_sample(self) -> int:
        return self.side**2

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        least, most = self.given("givens", held_out)
        digits, order = _grids(self.side, least, held_out)
        chosen = random.integers(len(digits), size=number)
        # The last cells of an order are given.
        given = random.integers(least, most + 1, size=number)
        ranks = np.argsort(order[chosen], axis=1).reshape(number, self.side, self.side)
        inputs = np.empty((number, self.side, self.side), int)
        targets = np.empty_like(inputs)
        for sample, grid in enumerate(digits[chosen]):
            relabelled = np.append(0, 1 + random.permutation(self.side))[grid]
            # Permuted rows and columns stay in their boxes.
            orders = []
            for size in _BOXES[self.side]:
                boxes = size * random.permutation(self.side // size)
                orders.append(np.concatenate([x + random.permutation(size) for x in boxes]))
            cells = np.ix_(*orders)
            targets[sample] = relabelled[cells]
            shown = ranks[sample][cells] >= self.side**2 - given[sample]
            inputs[sample] = np.where(shown, targets[sample], 0)
        channels = np.eye(self.side + 1, dtype=np.float32)
        return Batch(channels[inputs], targets.reshape(number, -1).astype(np.int32))


@ft.lru_cache(maxsize=4)
def _grids(side: int, least: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Full grids, `[grids, side, side]`, and for each the order in which its cells are emptied;
    the last `least` stay."""
    random = np.random.default_rng([side, least, held_out])
    grids = []
    orders = []
    trials = 0
    while len(grids) < _GRIDS:
        if trials == _TRIALS * (len(grids) + 8):
            raise InputError(
                f"Sudoku: of {trials} random grids of side {side} {len(grids)} have one "
                f"solution with {least} digits; give more."
            )
        trials += 1
        grid = next(_fillings(np.zeros(side**2, int), side, random))
        # A cell is emptied if one solution is left.
        cells = grid.copy()
        emptied = []
        filled = []
        for cell in random.permutation(side**2):
            cells[cell] = 0
            ways = it.islice(_fillings(cells, side), 2)
            if len(emptied) + least < side**2 and len([*ways]) == 1:
                emptied.append(cell)
            else:
                cells[cell] = grid[cell]
                filled.append(cell)
        if len(filled) == least:
            grids.append(grid.reshape(side, side))
            orders.append(emptied + filled)
    return np.stack(grids), np.array(orders)


@ft.cache
def _peers(side: int) -> list[list[int]]:
    """For each cell the other cells in its row, column or box."""
    high, wide = _BOXES[side]
    places = [divmod(cell, side) for cell in range(side**2)]
    units = [(f"row {i}", f"column {j}", (i // high, j // wide)) for i, j in places]
    cells = range(side**2)
    shared = [[{*units[i]} & {*units[j]} for j in cells] for i in cells]
    return [[j for j in cells if j != i and shared[i][j]] for i in cells]


def _fillings(
    cells: np.ndarray, side: int, random: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """All ways to fill a grid; `random` shuffles the digits."""
    peers = _peers(side)
    filled = [int(digit) for digit in cells]
    every = 2 ** (side + 1) - 2  # a bit for each digit

    def fill() -> Iterator[np.ndarray]:
        least = side + 1
        chosen = -1
        left = 0
        for cell, digit in enumerate(filled):
            if digit:
                continue
            free = every
            for other in peers[cell]:
                free &= ~(1 << filled[other])
            if (number := free.bit_count()) < least:
                least = number
                chosen = cell
                left = free
            if number < 2:
                break
        if chosen < 0:
            yield np.array(filled)
            return
        digits = [digit for digit in range(1, side + 1) if left >> digit & 1]
        if random is not None:
            random.shuffle(digits)
        for digit in digits:
            filled[chosen] = digit
            yield from fill()
        filled[chosen] = 0

    yield from fill()
