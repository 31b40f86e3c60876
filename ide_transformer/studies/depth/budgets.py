from collections.abc import Collection, Sequence
from typing import Any

import numpy as np


def compare_budgets(
    rows: Sequence[dict[str, Any]],
    losses: Sequence[np.ndarray],
    *,
    ours: Collection[str],
    theirs: Collection[str],
) -> list[dict[str, Any]]:
    """For each number of field evaluations, the method of least loss among `ours` and among
    `theirs`, with the loss of each, `difference` (ours minus theirs) and `uncertainty`, the
    standard error of that difference over samples.

    **Arguments:**

    - `rows`: with `method`, `field_evaluations`, `loss`.
    - `losses`: for each row, the loss of each sample; the same samples for all.
    - `ours`, `theirs`: names of methods.
    """

    def best(budget: float, methods: Collection[str]) -> int | None:
        found = [
            index
            for index, row in enumerate(rows)
            if row["field_evaluations"] == budget
            and row["method"] in methods
            and row["loss"] is not None
        ]
        return min(found, key=lambda index: rows[index]["loss"], default=None)

    table = []
    for budget in sorted({row["field_evaluations"] for row in rows}, reverse=True):
        mine, other = best(budget, ours), best(budget, theirs)
        if mine is None or other is None:
            continue
        change = losses[mine] - losses[other]
        table.append(
            {
                "field_evaluations": budget,
                "coarsening": rows[mine]["method"],
                "loss": rows[mine]["loss"],
                "layer_dropping": rows[other]["method"],
                "its_loss": rows[other]["loss"],
                "difference": float(np.mean(change)),
                "uncertainty": standard_error(change),
            }
        )
    return table


def standard_error(values: np.ndarray) -> float | None:
    """The standard error of the mean of independent values; `None` for a single one."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
