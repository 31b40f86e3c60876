"""Rules of a fair comparison, and those that one breaks."""

from collections.abc import Mapping, Sequence
from typing import Any


RATE = "optimizer.learning_rate"


def broken_rules(
    seeds: int,
    swept: Mapping[str, Sequence[float]],
    tested: bool,
    rows: Sequence[dict[str, Any]],
    samples: Mapping[str, Any] | None = None,
) -> list[str]:
    """The rules that a comparison breaks, a sentence for each.

    **Arguments:**

    - `seeds`: their number.
    - `swept`: the keys that were tuned.
    - `tested`: whether the result is on other data than what was chosen by.
    - `rows`: of the report.
    - `samples`: for each scheme what decides on which samples its losses are, the reference
      first; by default they are the same.
    """
    done = [row for row in rows if "seeds" in row]
    few = "One seed" if seeds == 1 else f"{seeds} seeds"
    rules = (
        seeds < 3 and f"{few}: give three at least.",
        not tested and "These data have no test part: the figures are of validation data.",
        RATE not in swept and "No learning rate was tuned: it may decide more than the scheme.",
        _edges(rows),
        _unequal("parameters", "It takes part in every difference.", done),
        _unequal("field_evaluations", "See at_equal_evaluations.", done),
        _other_samples(samples or {}),
        _failed(rows),
    )
    return [sentence for sentence in rules if sentence]


def _edges(rows: Sequence[dict[str, Any]]) -> str:
    names = [row["scheme"] for row in rows if row.get("at_edge")]
    return f"A better value may lie beyond those tried: {', '.join(names)}." if names else ""


def _unequal(column: str, advice: str, rows: Sequence[dict[str, Any]]) -> str:
    values = sorted({row[column] for row in rows})
    # Numbers of evaluations of schemes with a part of a layer differ by rounding.
    if not values or values[-1] <= 1.01 * values[0]:
        return ""
    name = column.replace("_", " ").capitalize()
    return f"{name} differ, from {values[0]:,.0f} to {values[-1]:,.0f}. {advice}"


def _other_samples(samples: Mapping[str, Any]) -> str:
    first = next(iter(samples), "")
    names = [name for name, of_this in samples.items() if of_this != samples[first]]
    if not names:
        return ""
    return (
        f"Data or context differ from those of {first}, so losses are on other samples: "
        f"{', '.join(names)}."
    )


def _failed(rows: Sequence[dict[str, Any]]) -> str:
    names = [row["scheme"] for row in rows if row.get("failure")]
    return f"Failed, so without figures: {', '.join(names)}." if names else ""
