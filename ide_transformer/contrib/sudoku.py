"""Sudoku: fill grids with a unique solution."""

import functools as ft
import itertools as it
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np

from ide_transformer.arguments import PositiveInt
from ide_transformer.errors import InputError
from ide_transformer.models import OperatorModel
from ide_transformer.tasks import AbstractDrawn, Batch, InstanceCrossEntropy, checked_dataclass


# The rows and columns of a box, by side.
_BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
# The number of grids of a part, which all samples vary, and the most trials for each grid.
_GRIDS = 512
_TRIALS = 50


@checked_dataclass
class Sudoku(AbstractDrawn):
    """Fill a Sudoku with a unique solution: each row, column and box has each digit once, and
    some digits are given.

    `inputs: [samples, side, side, side + 1]`: a one-hot digit for each cell, 0 if it is empty.
    `targets: [samples, side²]`: the digits, row by row.

    With fewer givens, longer chains of digits have to be found. 512 random grids for training
    and 512 for held-out samples are varied by permuting digits, and rows and columns within the
    boxes: two million ways for side 6.

    **Arguments:**

    - `side`: 4 with boxes of 2 by 2, 6 with 2 by 3, or 9 with 3 by 3.
    - `givens`: the least and the most given digits in training.
    - `held_out_givens`: the range for held-out samples; default: `givens`.

    **Raises:** `InputError` for so few givens that grids with a unique solution are too rare.
    """

    model = OperatorModel
    loss = InstanceCrossEntropy()
    sized_by_context = False

    side: Literal[4, 6, 9] = 6
    givens: tuple[PositiveInt, PositiveInt] = (14, 20)
    held_out_givens: tuple[PositiveInt, PositiveInt] | None = None

    def __post_init__(self):
        for held_out in (False, True):
            least, most = self.get_option("givens", held_out)
            if not least <= most <= self.side**2:
                raise InputError(
                    f"{'held_out_givens' if held_out else 'givens'}={[least, most]} must be "
                    f"the least and the most digits of {self.side**2} cells."
                )

    @property
    def sizes(self) -> dict[str, Any]:
        return {"points": (self.side, self.side), "channels": self.side + 1}

    @property
    def tokens_per_sample(self) -> int:
        return self.side**2

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        least, most = self.get_option("givens", held_out)
        grids, orders = _draw_grids(self.side, least, held_out)
        indices = random.integers(len(grids), size=number)
        # The last cells of an order are given.
        num_givens = random.integers(least, most + 1, size=number)
        ranks = np.argsort(orders[indices], axis=1).reshape(number, self.side, self.side)
        inputs = np.empty((number, self.side, self.side), int)
        targets = np.empty_like(inputs)
        for sample, grid in enumerate(grids[indices]):
            relabelled = np.append(0, 1 + random.permutation(self.side))[grid]
            # Permuted rows and columns stay in their boxes.
            axes = []
            for size in _BOXES[self.side]:
                boxes = size * random.permutation(self.side // size)
                axes.append(np.concatenate([x + random.permutation(size) for x in boxes]))
            cells = np.ix_(*axes)
            targets[sample] = relabelled[cells]
            is_given = ranks[sample][cells] >= self.side**2 - num_givens[sample]
            inputs[sample] = np.where(is_given, targets[sample], 0)
        channels = np.eye(self.side + 1, dtype=np.float32)
        return Batch(channels[inputs], targets.reshape(number, -1).astype(np.int32))


@ft.lru_cache(maxsize=4)
def _draw_grids(side: int, least: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Draws full grids, `[grids, side, side]`, and for each an order in which its cells can be
    emptied; the last `least` stay."""
    random = np.random.default_rng([side, least, held_out])
    grids = []
    orders = []
    trials = 0
    while len(grids) < _GRIDS:
        if trials == _TRIALS * (len(grids) + 8):
            raise InputError(
                f"Sudoku: only {len(grids)} of {trials} random grids of side {side} have a "
                f"unique solution with givens={least}; allow more."
            )
        trials += 1
        grid = next(_fillings(np.zeros(side**2, int), side, random))
        # A cell is emptied if the solution stays unique.
        cells = grid.copy()
        emptied = []
        filled = []
        for cell in random.permutation(side**2):
            cells[cell] = 0
            solutions = it.islice(_fillings(cells, side), 2)
            if len(emptied) + least < side**2 and len([*solutions]) == 1:
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
    """The other cells in the row, column or box of each cell."""
    rows, columns = _BOXES[side]
    cells = range(side**2)
    places = [divmod(cell, side) for cell in cells]
    units = [{f"row {i}", f"column {j}", (i // rows, j // columns)} for i, j in places]
    return [[j for j in cells if j != i and units[i] & units[j]] for i in cells]


def _fillings(
    cells: np.ndarray, side: int, random: np.random.Generator | None = None
) -> Iterator[np.ndarray]:
    """All ways to fill a grid; `random` shuffles the digits."""
    peers = _peers(side)
    filled = [int(digit) for digit in cells]
    all_digits = 2 ** (side + 1) - 2  # a bit for each digit

    def fill() -> Iterator[np.ndarray]:
        # The empty cell with the fewest possible digits.
        fewest = side + 1
        next_cell = -1
        possible = 0
        for cell, digit in enumerate(filled):
            if digit:
                continue
            bits = all_digits
            for peer in peers[cell]:
                bits &= ~(1 << filled[peer])
            count = bits.bit_count()
            if count < fewest:
                fewest = count
                next_cell = cell
                possible = bits
            if count < 2:
                break
        if next_cell < 0:
            yield np.array(filled)
            return
        digits = [digit for digit in range(1, side + 1) if possible >> digit & 1]
        if random is not None:
            random.shuffle(digits)
        for digit in digits:
            filled[next_cell] = digit
            yield from fill()
        filled[next_cell] = 0

    yield from fill()
