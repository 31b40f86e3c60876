"""Keys that are tuned for each scheme before it is compared."""

import functools as ft
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field, PositiveFloat, WrapValidator

from ...figures import plot_curves
from ...reporting import show_table, write_json
from ...training import Section
from ...training.configuration.section import CountOrZero


def _as_written(value: Any, check: Callable[[Any], float]) -> float:
    """A number that passes the check; an integer stays one, as some keys need it."""
    number = check(value)
    return value if type(value) is int else number


Value = Annotated[PositiveFloat, WrapValidator(_as_written)]
Values = Annotated[tuple[Value, ...], Field(min_length=2, strict=False)]


class Sweep(Section):
    """The section `sweep`: keys that are tuned for each scheme. All combinations of the values
    are trained with the first seed, and the one with the lowest validation loss with the other
    seeds too.

    - `keys`: from a key of the run, such as `optimizer.learning_rate`, to the values to try.
    - `extend`: where the best value is the least or the greatest one, the values go on in the
      same ratio, at most so often and as far as a run can have them.
    """

    keys: Annotated[dict[str, Values], Field(min_length=1)]
    extend: CountOrZero = 2

    def problems(self) -> Mapping[str, Any]:
        return {
            f"keys.{key}={list(values)}: {refusal}": applies
            for key, values in self.keys.items()
            for refusal, applies in {
                "the budget gives the number of steps; drop it": key == "training.steps",
                "each run has one of seeds; write seeds: [0, 1]": key == "training.seed",
                "other data have other losses, by which nothing can be tuned; make schemes "
                "that differ in it": key.startswith("data.")
                or key in ("model.context", "model.patch"),
                "give each value once, the least first": list(values) != sorted(set(values)),
                "two of them would share a folder, whose name has four digits of a value; give "
                "values that are further apart": len({*map(_short, values)}) < len(values),
            }.items()
        }


class Trial(NamedTuple):
    """A run: a scheme, a value for each key that is tuned, and a seed."""

    scheme: str
    values: tuple[float, ...]
    seed: int

    @property
    def name(self) -> str:
        """A folder name; names of schemes may have parentheses and spaces."""
        scheme = re.sub(r"[^A-Za-z0-9.]+", "_", self.scheme).strip("_")
        return "-".join((scheme, *map(_short, self.values), f"seed{self.seed}"))


class Tuned(NamedTuple):
    """The best trial of a scheme, the loss of each that was made, and the keys for which the
    best value is the least or the greatest one, so that a better one may lie beyond."""

    best: Trial
    losses: dict[Trial, float]
    at_edge: list[str]


def grid(scheme: str, keys: Mapping[str, Sequence[float]], seed: int) -> list[Trial]:
    """A trial for each combination of the values."""
    return [Trial(scheme, values, seed) for values in itertools.product(*keys.values())]


def tuned(
    scheme: str,
    sweep: Sweep | None,
    seed: int,
    loss: Callable[[Trial], float],
    possible: Callable[[Trial], bool] = lambda trial: True,
) -> Tuned:
    """Tunes a scheme by the loss of trials; without a sweep there is one. `possible` says
    whether there can be a trial with further values."""
    keys = dict(sweep.keys) if sweep else {}
    left = sweep.extend if sweep else 0
    possible = ft.cache(possible)
    losses: dict[Trial, float] = {}
    trials = grid(scheme, keys, seed)
    while True:
        losses |= {trial: loss(trial) for trial in trials}
        best = min(losses, key=lambda trial: losses[trial])
        if math.isinf(losses[best]):
            return Tuned(best, losses, [])
        beyond, further = [], {}
        for number, (key, values) in enumerate(keys.items()):
            value = _beyond(values, best.values[number])
            if value is None:
                continue
            beyond.append(key)
            there = best._replace(values=_with(best.values, number, value))
            if _short(value) not in map(_short, values) and possible(there):
                further[key] = (*values, value)
        if not further or not left:
            return Tuned(best, losses, beyond)
        keys |= {key: tuple(sorted(values)) for key, values in further.items()}
        trials = [t for t in grid(scheme, keys, seed) if t not in losses and possible(t)]
        left -= 1


def _beyond(values: Sequence[float], best: float) -> float | None:
    """The next value in the same ratio, where the best is the least or the greatest; of
    integers an integer, where that is one."""
    if values[0] < best < values[-1]:
        return None
    end, neighbor = (values[0], values[1]) if best == values[0] else (values[-1], values[-2])
    value = float(_short(end**2 / neighbor))
    whole = value.is_integer() and all(isinstance(x, int) for x in values)
    return int(value) if whole else value


def _short(value: float) -> str:
    """A value in the name of a folder."""
    return f"{value:.4g}"


def write_sweep(folder: Path, sweep: Sweep, chosen: list[Tuned], label: str) -> None:
    """Prints and writes what was tried, `sweep.json`, and a figure for each key, with the loss
    called by its `label`."""
    rows = [
        {"scheme": t.scheme, **dict(zip(sweep.keys, t.values, strict=True)), "loss": loss}
        for tuning in chosen
        for t, loss in tuning.losses.items()
    ]
    write_json(folder / "sweep.json", rows)
    show_table(rows, {"loss": label})
    for number, key in enumerate(sweep.keys):
        curves = {}
        for best, losses, _ in chosen:
            # Along the key, through the best trial.
            line = sorted(
                (trial.values[number], loss)
                for trial, loss in losses.items()
                if math.isfinite(loss)
                and trial.values == _with(best.values, number, trial.values[number])
            )
            if line:
                curves[best.scheme] = tuple(np.array(line).T)
        path = folder / f"sweep_{key}.png"
        look = dict(title="What was tuned", marker="o", log="x")
        plot_curves(path, curves, x=key, y=label, **look)


def _with(values: tuple[float, ...], number: int, value: float) -> tuple[float, ...]:
    return *values[:number], value, *values[number + 1 :]
