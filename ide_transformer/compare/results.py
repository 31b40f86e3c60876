"""Figures of the runs of a comparison, and the rules of a fair one."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from .measure import standard_error
from .sweep import RATE


def figures_of(runs: Sequence[dict[str, Any]], reported: str) -> dict[str, Any]:
    """The figures of a scheme, from its runs; `reported` is the loss that counts."""
    losses = [run[reported] for run in runs]
    means = {}
    for name in runs[0]:
        if name.startswith(("test_", "validation_")):
            # `None` is a number that was not finite.
            values = np.array([run[name] for run in runs], dtype=float)
            means[name] = float(values.mean()) if np.isfinite(values).all() else None
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
    """The values that a run has logged under a name, by step."""
    return {line["step"]: line[name] for line in run["log"] if name in line}


def difference(
    own: Sequence[float] | None, reference: Sequence[float] | None
) -> dict[str, Any]:
    """The columns of the difference between the losses of two schemes: the mean of
    `dᵢ = ownᵢ - referenceᵢ` over n seeds, and half of its 95 % interval by Student,
    `t(0.975, n - 1) s / √n`, s their standard deviation. `None` where losses are missing, and
    for the interval of a single seed."""
    if not own or not reference:
        return {"difference": None, "half_width": None}
    differences = np.subtract(own, reference)
    half = standard_error(differences)
    if half is not None:
        half *= float(special.stdtrit(len(own) - 1, 0.975))
    return {"difference": float(differences.mean()), "half_width": half}


def difference_text(row: Mapping[str, Any]) -> str | float | None:
    """The difference of a row for a terminal, with its interval if it has one."""
    if row.get("half_width") is None:
        return row.get("difference")
    return f"{row['difference']:.3g} ± {row['half_width']:.2g}"


def verdict(rows: Sequence[Mapping[str, Any]], references: Mapping[str, str]) -> str:
    """What the 95 % intervals allow to conclude. `references` has the scheme from which each
    difference is taken. Empty without intervals."""
    found: dict[str, list[str]] = {}
    for row in rows:
        half = row.get("half_width")
        if half is None:
            continue
        if not abs(row["difference"]) > half:
            said = "not told apart from"
        else:
            said = "lower than" if row["difference"] < 0 else "above"
        key = f"{said} {references[row['scheme']]}"
        found.setdefault(key, []).append(row["scheme"])
    each = (f"{said}: {', '.join(names)}" for said, names in found.items())
    return f"By the 95 % intervals, {'; '.join(each)}. " if found else ""


class LearningCurve(NamedTuple):
    """The validation loss of a scheme at steps on the way: the mean over its runs, their least
    and most; and the field evaluations and seconds of training steps until there."""

    steps: Int[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    band: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]
    evaluations: Float[np.ndarray, " points"]
    seconds: Float[np.ndarray, " points"]


def learning_curve(
    runs: Sequence[dict[str, Any]], tokens: Sequence[Int[np.ndarray, " steps"]]
) -> LearningCurve:
    """The curve of runs that differ in their seed, with the tokens of each step of each."""
    curves = [logged(run, "validation_loss") for run in runs]
    steps = np.array([*curves[0]])
    # A loss that was not finite is `None`; it makes the mean NaN.
    losses = np.array([[*curve.values()] for curve in curves], dtype=float)
    seen = np.insert(np.cumsum(tokens, axis=1), 0, 0, axis=1)
    spent = []
    seconds = []
    for run, of_run in zip(runs, seen, strict=True):
        # A logged number stands for all steps since the one before. Evaluations are logged for
        # one mesh, which was drawn, so their sum is scaled to the sum of the run.
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
    """The loss on each curve where it has cost as much as the cheapest curve in all; `None`
    before its first point."""
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
    """A sentence for each rule of a fair comparison that is broken. By scheme, the reference
    first, `warmups` has the steps of the warm-up, and `samples` what decides which samples are
    measured."""
    few = "One seed" if seeds == 1 else f"{seeds} seeds"
    first = next(iter(samples))
    others = ", ".join(name for name, own in samples.items() if own != samples[first])
    long = ", ".join(
        f"{row['scheme']} ({warmups[row['scheme']]} of {row['steps']})"
        for row in rows
        if "steps" in row and warmups[row["scheme"]] > 0.1 * row["steps"]
    )
    spreads = {row["scheme"]: row["spread"] for row in rows if row.get("spread")}
    usual = float(np.median([*spreads.values()])) if spreads else 0.0
    wide = ", ".join(name for name, x in spreads.items() if x > 5 * usual)
    at_edge, at_equal, failed = (
        ", ".join(row["scheme"] for row in rows if row.get(column))
        for column in ("at_edge", "at_equal_evaluations", "failure")
    )
    parameters = _range("parameters", rows)
    evaluations = _range("field_evaluations", rows)
    rules = {
        f"{few}: give three at least.": seeds < 3,
        "These data have no test part: the figures are of validation data.": not tested,
        "No learning rate was tuned: it may decide more than the scheme.": RATE not in swept,
        "The warm-up takes more than a tenth of the steps, which holds back a scheme with few "
        f"steps; lower optimizer.warmup: {long}.": long,
        "Seeds spread more than five times as far as is usual here: the rate may be too high, "
        f"and the next lower one of the sweep better: {wide}.": wide,
        f"A better value may lie beyond those tried: {at_edge}.": at_edge,
        f"{parameters} It takes part in every difference.": parameters,
        # With several budgets they differ on purpose.
        f"{evaluations} See the losses at equal evaluations.": evaluations and at_equal,
        f"Data or context are other than in {first}, so losses are on other samples: "
        f"{others}.": others,
        f"Failed, so without figures: {failed}.": failed,
    }
    return [sentence for sentence, broken in rules.items() if broken]


def _range(column: str, rows: Sequence[dict[str, Any]]) -> str:
    """How far a column differs; empty where it hardly does."""
    values = sorted(row[column] for row in rows if "seeds" in row)
    # Evaluations of schemes with a part of a layer differ by rounding.
    if not values or values[-1] <= 1.01 * values[0]:
        return ""
    name = column.replace("_", " ").capitalize()
    return f"{name} differ, from {values[0]:,.0f} to {values[-1]:,.0f}."
