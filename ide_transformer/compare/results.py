"""Figures of the runs of a comparison, and checks that it is fair."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .measure import spread, standard_error
from .sweep import RATE


def summarise_runs(runs: Sequence[dict[str, Any]], reported: str) -> dict[str, Any]:
    """The figures of a scheme from its runs. `reported` names the loss to compare."""
    losses = [run[reported] for run in runs]
    means = {}
    for name in runs[0]:
        if name.startswith(("test_", "validation_")):
            # `None` stands for a number that is not finite.
            values = np.array([run[name] for run in runs], dtype=float)
            means[name] = float(values.mean()) if np.isfinite(values).all() else None
    speeds = [np.median([*logged_values(run, "tokens_per_second").values()]) for run in runs]
    return {
        reported: means.pop(reported),
        "spread": spread(losses),
        **means,
        "parameters": runs[0]["parameters"],
        "evaluations_per_step": float(np.mean([run["nfe"] for run in runs])),
        "steps": runs[0]["steps"],
        "field_evaluations": float(np.mean([run["nfe"] * run["steps"] for run in runs])),
        "tokens_per_second": float(np.median(speeds)),
        "seconds": float(np.median([run["seconds"] for run in runs])),
        "seeds": losses,
    }


def logged_values(run: dict[str, Any], name: str) -> dict[int, Any]:
    """The values that a run has logged under a name, by step."""
    return {line["step"]: line[name] for line in run["log"] if name in line}


def difference(
    losses: Sequence[float] | None, reference: Sequence[float] | None
) -> dict[str, Any]:
    """The columns of the difference between the losses of two schemes: the mean of
    `dᵢ = lossᵢ - referenceᵢ` over n seeds, and half of its 95 % interval by Student,
    `t(0.975, n - 1) s / √n`, where s is the standard deviation of dᵢ. `None` without losses; a
    single seed has no interval."""
    if not losses or not reference:
        return {"difference": None, "half_width": None}
    differences = np.subtract(losses, reference)
    half_width = standard_error(differences)
    if half_width is not None:
        from scipy import special

        half_width *= float(special.stdtrit(len(losses) - 1, 0.975))
    return {"difference": float(differences.mean()), "half_width": half_width}


def difference_text(row: Mapping[str, Any]) -> str | float | None:
    """The difference of a row for a terminal, with its interval if there is one."""
    if row.get("half_width") is None:
        return row.get("difference")
    return f"{row['difference']:.3g} ± {row['half_width']:.2g}"


def verdict(rows: Sequence[Mapping[str, Any]], references: Mapping[str, str]) -> str:
    """The conclusion from the 95 % intervals, empty without intervals. `references` has the
    scheme that each difference subtracts."""
    conclusions: dict[str, list[str]] = {}
    for row in rows:
        half_width = row.get("half_width")
        if half_width is None:
            continue
        if not abs(row["difference"]) > half_width:
            relation = "not told apart from"
        else:
            relation = "lower than" if row["difference"] < 0 else "above"
        conclusion = f"{relation} {references[row['scheme']]}"
        conclusions.setdefault(conclusion, []).append(row["scheme"])
    texts = (f"{conclusion}: {', '.join(names)}" for conclusion, names in conclusions.items())
    return f"By the 95 % intervals, {'; '.join(texts)}. " if conclusions else ""


class LearningCurve(NamedTuple):
    """The validation loss of a scheme during training.

    - `steps`: the steps of the evaluations.
    - `losses`, `band`: the mean over the runs of the scheme, and their least and most.
    - `evaluations`, `seconds`: field evaluations and time of training until each step.
    """

    steps: Int[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    band: tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]
    evaluations: Float[np.ndarray, " points"]
    seconds: Float[np.ndarray, " points"]


def learning_curve(
    runs: Sequence[dict[str, Any]], tokens: Sequence[Int[np.ndarray, " steps"]]
) -> LearningCurve:
    """The learning curve of runs with different seeds. `tokens` has the tokens of each step of
    each run."""
    curves = [logged_values(run, "validation_loss") for run in runs]
    steps = np.array([*curves[0]])
    # `None` stands for a loss that is not finite, and makes the mean NaN.
    losses = np.array([[*curve.values()] for curve in curves], dtype=float)
    total_tokens = np.insert(np.cumsum(tokens, axis=1), 0, 0, axis=1)
    evaluations = []
    seconds = []
    for run, tokens_until in zip(runs, total_tokens, strict=True):
        # A logged number stands for all steps since the last log. Evaluations are logged for
        # the mesh of a single step, so their sum is scaled to the sum of the run.
        costs = [(0, 0.0), *logged_values(run, "field_evaluations").items()]
        logged_steps, per_step = np.array(costs).T
        spent = np.cumsum(per_step * np.diff(logged_steps, prepend=0.0))
        total = np.interp(steps, logged_steps, spent)
        evaluations.append(total * run["nfe"] * run["steps"] / total[-1])
        speeds = [(0, 1.0), *logged_values(run, "tokens_per_second").items()]
        logged_steps, speed = np.array(speeds).T
        durations = np.diff(tokens_until[logged_steps.astype(int)], prepend=0) / speed
        seconds.append(np.interp(steps, logged_steps, np.cumsum(durations)))
    return LearningCurve(
        steps,
        losses.mean(axis=0),
        band=(losses.min(axis=0), losses.max(axis=0)),
        evaluations=np.mean(evaluations, axis=0),
        seconds=np.median(seconds, axis=0),
    )


def at_equal_cost(curves: Mapping[str, LearningCurve], cost: str) -> dict[str, float | None]:
    """The loss on each curve at the total cost of the cheapest curve; `None` if the curve
    begins later."""
    amount = min(getattr(curve, cost)[-1] for curve in curves.values())
    losses = {}
    for name, curve in curves.items():
        loss = np.interp(amount, getattr(curve, cost), curve.losses, left=np.nan)
        losses[name] = None if np.isnan(loss) else float(loss)
    return losses


def broken_rules(
    seeds: int,
    swept: Mapping[str, Sequence[float]],
    tested: bool,
    rows: Sequence[dict[str, Any]],
    warmups: Mapping[str, int],
    samples: Mapping[str, Any],
) -> list[str]:
    """A sentence for each broken rule of a fair comparison.

    **Arguments:**

    - `warmups`: the warm-up steps of each scheme.
    - `samples`: a key of the samples of each scheme, the reference first. Schemes with other
      keys are measured on other samples.
    """
    number_of_seeds = "One seed" if seeds == 1 else f"{seeds} seeds"
    first = next(iter(samples))
    differing = ", ".join(name for name, key in samples.items() if key != samples[first])
    long_warmups = ", ".join(
        f"{row['scheme']} ({warmups[row['scheme']]} of {row['steps']})"
        for row in rows
        if "steps" in row and warmups[row["scheme"]] > 0.1 * row["steps"]
    )
    spreads = {row["scheme"]: row["spread"] for row in rows if row.get("spread")}
    median = float(np.median([*spreads.values()])) if spreads else 0.0
    wide_spreads = ", ".join(name for name, x in spreads.items() if x > 5 * median)
    at_edge, at_equal, failed = (
        ", ".join(row["scheme"] for row in rows if row.get(column))
        for column in ("at_edge", "at_equal_evaluations", "failure")
    )
    parameters = _describe_range("parameters", rows)
    evaluations = _describe_range("field_evaluations", rows)
    rules = {
        f"{number_of_seeds}: use at least three.": seeds < 3,
        "These data have no test part: the figures are of validation data.": not tested,
        "No learning rate was tuned: it may decide more than the scheme.": RATE not in swept,
        "The warm-up takes more than a tenth of the steps, which holds back a scheme with few "
        f"steps; lower optimizer.warmup: {long_warmups}.": long_warmups,
        "Seeds spread more than five times as far as the median scheme. The rate may be too "
        f"high; try the next lower rate of the sweep: {wide_spreads}.": wide_spreads,
        f"The best value is at the edge of the sweep, so a better one may exist: {at_edge}.": (
            at_edge
        ),
        f"{parameters} This affects every difference.": parameters,
        # With several budgets they differ on purpose.
        f"{evaluations} See the losses at equal evaluations.": evaluations and at_equal,
        f"Data or context differ from {first}, so losses are on different samples: "
        f"{differing}.": differing,
        f"Failed, so without figures: {failed}.": failed,
    }
    return [sentence for sentence, is_broken in rules.items() if is_broken]


def _describe_range(column: str, rows: Sequence[dict[str, Any]]) -> str:
    """A sentence on the range of a column; empty if it is below 1 %."""
    values = sorted(row[column] for row in rows if "seeds" in row)
    # Evaluations of schemes with a part of a layer have rounding errors.
    if not values or values[-1] <= 1.01 * values[0]:
        return ""
    name = column.replace("_", " ").capitalize()
    return f"{name} differ, from {values[0]:,.0f} to {values[-1]:,.0f}."
