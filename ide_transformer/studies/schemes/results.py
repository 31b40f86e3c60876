"""The figures of the runs of a comparison by training, and the rules of a fair one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from ..measure import standard_error
from .comparison import Rows


RATE = "optimizer.learning_rate"


def figures_of(runs: Sequence[dict[str, Any]], reported: str) -> dict[str, Any]:
    """The figures of a scheme, from its runs."""
    losses = [run[reported] for run in runs]
    measured = [name for name in runs[0] if name.startswith(("test_", "validation_"))]
    # What is not finite becomes None: JSON has no such numbers.
    values = {name: np.array([run[name] for run in runs], dtype=float) for name in measured}
    means = {n: float(x.mean()) if np.isfinite(x).all() else None for n, x in values.items()}
    speeds = [np.median([*logged(run, "tokens_per_second").values()]) for run in runs]
    return {
        reported: means.pop(reported),
        "spread": float(np.std(losses, ddof=1)) if len(losses) > 1 else None,
        **means,
        "parameters": runs[0]["parameters"],
        "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
        "steps": runs[0]["steps"],
        "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
        "tokens_per_second": float(np.median(speeds)),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "seeds": losses,
    }


def logged(run: dict[str, Any], name: str) -> dict[int, Any]:
    """The values that a run has logged under that name, by step."""
    return {line["step"]: line[name] for line in run["log"] if name in line}


def difference(row: dict[str, Any], rows: Rows, reference: str | None) -> dict[str, Any]:
    """The columns of the difference to a reference, which has none itself: the mean of
    `dᵢ = ownᵢ - referenceᵢ` over n seeds, and half of its 95 % interval of Student,
    `t(0.975, n - 1) s / √n`, s their standard deviation. `None` where a run failed, and for
    the interval of a single seed."""
    seeds = {other["scheme"]: other.get("seeds") for other in rows}
    own = seeds[row["scheme"]]
    others = seeds.get(reference)
    found: dict[str, Any] = {"difference": None, "half_width": None}
    if own and others:
        differences = np.subtract(own, others)
        found["difference"] = float(differences.mean())
        error = standard_error(differences)
        if error is not None:
            found["half_width"] = float(special.stdtrit(len(own) - 1, 0.975)) * error
    return found


def verdict(rows: Sequence[Mapping[str, Any]], references: Mapping[str, str]) -> str:
    """The conclusion that each 95 % interval allows, given the scheme from which each
    difference is taken; empty without intervals."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        half = row.get("half_width")
        if half is not None:
            if not abs(row["difference"]) > half:
                said = "not told apart from"
            elif row["difference"] < 0:
                said = "lower than"
            else:
                said = "above"
            found.setdefault((said, references[row["scheme"]]), []).append(row["scheme"])
    each = (f"{said} {other}: {', '.join(names)}" for (said, other), names in found.items())
    return f"By the 95 % intervals, {'; '.join(each)}. " if found else ""


class LearningCurve(NamedTuple):
    """The mean validation loss of the runs of a scheme on the way, its least and its most, and
    what they have cost until then: field evaluations, and seconds of training steps alone."""

    steps: Int[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    band: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]
    evaluations: Float[np.ndarray, " points"]
    seconds: Float[np.ndarray, " points"]


def learning_curve(
    runs: Sequence[dict[str, Any]], tokens: Sequence[Int[np.ndarray, " steps"]]
) -> LearningCurve:
    """The curve of runs that differ in their seed alone, with so many `tokens` in each step of
    each."""
    curves = [logged(run, "validation_loss") for run in runs]
    steps = np.array([*curves[0]])
    # A loss on the way that is not finite is not in the log; it makes the mean NaN.
    losses = np.array([[*curve.values()] for curve in curves], dtype=float)
    seen = np.insert(np.cumsum(tokens, axis=1), 0, 0, axis=1)
    spent = []
    seconds = []
    for run, of_run in zip(runs, seen, strict=True):
        # Each logged number stands for the steps since the one before; that of evaluations for
        # those of a drawn mesh, so that the sum is only nearly that of the run.
        at, each = np.array([(0, 0.0), *logged(run, "field_evaluations").items()]).T
        made = np.interp(steps, at, np.cumsum(each * np.diff(at, prepend=0.0)))
        spent.append(made * run["nfe"] * run["steps"] / made[-1])
        at, speed = np.array([(0, 1.0), *logged(run, "tokens_per_second").items()]).T
        taken = np.diff(of_run[at.astype(int)], prepend=0) / speed
        seconds.append(np.interp(steps, at, np.cumsum(taken)))
    return LearningCurve(
        steps,
        losses.mean(axis=0),
        band=(losses.min(axis=0), losses.max(axis=0)),
        evaluations=np.mean(spent, axis=0),
        seconds=np.median(seconds, axis=0),
    )


def at_equal_cost(curves: Mapping[str, LearningCurve], cost: str) -> dict[str, float | None]:
    """The loss of each scheme where it has cost as much as the cheapest one in all, read from
    its learning curve; `None` before the first point of the curve."""
    amount = min(getattr(curve, cost)[-1] for curve in curves.values())
    found = {}
    for name, curve in curves.items():
        loss = np.interp(amount, getattr(curve, cost), curve.losses, left=np.nan)
        found[name] = None if np.isnan(loss) else float(loss)
    return found


def broken_rules(
    seeds: int,
    swept: Mapping[str, Sequence[float]],
    tested: bool,
    rows: Sequence[dict[str, Any]],
    warmups: Mapping[str, int],
    samples: Mapping[str, Any],
) -> list[str]:
    """A sentence for each rule of a fair comparison that is broken. Of each scheme `warmups`
    has the steps of its warm-up, and `samples` says on which samples its losses are, the
    reference first."""
    few = "One seed" if seeds == 1 else f"{seeds} seeds"
    first = next(iter(samples))
    others = ", ".join(name for name, own in samples.items() if own != samples[first])
    long = ", ".join(
        f"{row['scheme']} ({warmups[row['scheme']]} of {row['steps']})"
        for row in rows
        if "steps" in row and warmups[row["scheme"]] > 0.1 * row["steps"]
    )

    def named(column: str) -> str:
        return ", ".join(row["scheme"] for row in rows if row.get(column))

    spreads = {row["scheme"]: row["spread"] for row in rows if row.get("spread")}
    usual = float(np.median([*spreads.values()])) if spreads else 0.0
    wide = ", ".join(name for name, x in spreads.items() if x > 5 * usual)

    rules = (
        seeds < 3 and f"{few}: give three at least.",
        not tested and "These data have no test part: the figures are of validation data.",
        RATE not in swept and "No learning rate was tuned: it may decide more than the scheme.",
        long
        and "The warm-up takes more than a tenth of the steps, which holds back a scheme with "
        f"few steps; lower optimizer.warmup: {long}.",
        wide
        and "Seeds spread more than five times as far as is usual here: the rate may be "
        f"too high, and the next lower one of the sweep better: {wide}.",
        named("at_edge") and f"A better value may lie beyond those tried: {named('at_edge')}.",
        _unequal("parameters", "It takes part in every difference.", rows),
        # With several budgets they differ on purpose.
        named("at_equal_evaluations")
        and _unequal("field_evaluations", "See the losses at equal evaluations.", rows),
        others
        and f"Data or context differ from those of {first}, so losses are on other samples: "
        f"{others}.",
        named("failure") and f"Failed, so without figures: {named('failure')}.",
    )
    return [sentence for sentence in rules if sentence]


def _unequal(column: str, advice: str, rows: Sequence[dict[str, Any]]) -> str:
    values = sorted({row[column] for row in rows if "seeds" in row})
    # Numbers of evaluations of schemes with a part of a layer differ by rounding.
    if not values or values[-1] <= 1.01 * values[0]:
        return ""
    name = column.replace("_", " ").capitalize()
    return f"{name} differ, from {values[0]:,.0f} to {values[-1]:,.0f}. {advice}"
