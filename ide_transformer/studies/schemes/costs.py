"""Costs of the runs of a scheme, and losses at equal cost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int


class LearningCurve(NamedTuple):
    """The mean validation loss of the runs of a scheme on the way, and what they have cost
    until then: field evaluations, and seconds of training steps alone."""

    steps: Int[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]
    evaluations: Float[np.ndarray, " points"]
    seconds: Float[np.ndarray, " points"]


def learning_curve(runs: Sequence[dict[str, Any]], tokens_per_step: float) -> LearningCurve:
    """The curve of runs that differ in their seed alone; at the last step with the loss on all
    validation samples.

    **Arguments:**

    - `runs`: their summaries and logs, see `trials.result`.
    """
    curves = [_losses(run) for run in runs]
    steps = np.array([*curves[0]])
    # A loss on the way that is not finite is not in the log; it makes the mean NaN.
    losses = np.array([[*curve.values()] for curve in curves], dtype=float).mean(axis=0)
    evaluations = np.mean([_evaluations(run, steps) for run in runs], axis=0)
    return LearningCurve(steps, losses, evaluations, steps * tokens_per_step / speed(runs))


def speed(runs: Sequence[dict[str, Any]]) -> float:
    """Tokens per second, the median over the logs."""
    logged = [
        [x["tokens_per_second"] for x in run["log"] if "tokens_per_second" in x] for run in runs
    ]
    return float(np.median([np.median(speeds) for speeds in logged]))


def at_equal_cost(curves: Mapping[str, LearningCurve], cost: str) -> dict[str, float | None]:
    """The loss of each scheme where it has cost as much as the cheapest one in all, read from
    its learning curve; `None` before the first point of the curve.

    **Arguments:**

    - `cost`: `evaluations` or `seconds`.
    """
    amount = min(getattr(curve, cost)[-1] for curve in curves.values())
    found = {}
    for name, curve in curves.items():
        loss = np.interp(amount, getattr(curve, cost), curve.losses, left=np.nan)
        found[name] = None if np.isnan(loss) else float(loss)
    return found


def _losses(run: dict[str, Any]) -> dict[int, float | None]:
    """By step."""
    logged = {x["step"]: x["validation_loss"] for x in run["log"] if "validation_loss" in x}
    return {**logged, run["steps"]: run["validation_loss"]}


def _evaluations(run: dict[str, Any], steps: np.ndarray) -> np.ndarray:
    """Evaluations of a run up to some steps; each logged number stands for the steps since
    the one before."""
    logged = [
        (x["step"], x["field_evaluations"]) for x in run["log"] if "field_evaluations" in x
    ]
    at, each = np.array([(0, 0.0), *logged]).T
    return np.interp(steps, at, np.cumsum(each * np.diff(at, prepend=0.0)))
