"""Keys that are tuned for each scheme before schemes are compared."""

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from ..arguments import Bound, above
from ..figures import plot_curves
from ..reporting import show_table, write_json
from ..training import Section, section
from ..training.configuration.config import CountOrZero, Seed, not_empty


RATE = "optimizer.learning_rate"

# Some keys need integers, so these stay integers.
Values = Annotated[
    tuple[Annotated[int | float, above(0)], ...], Bound("two or more", lambda x: len(x) > 1)
]


@section
class Sweep(Section):
    """The section `sweep`. Each scheme is trained with all combinations of the values for one
    seed; the other seeds take the combination with the lowest validation loss.

    - `keys`: from a key of the run, such as `optimizer.learning_rate`, to the values to try.
    - `extend`: if the best value is the first or the last, further values follow in the same
      ratio, at most this many times.
    - `seed`: the seed of these runs, by default the first of the comparison. Runs with a seed
      that is not in the comparison tune only, and are not reported.
    """

    keys: Annotated[dict[str, Values], not_empty]
    extend: CountOrZero = 2
    seed: Seed | None = None

    def problems(self) -> Iterator[str]:
        for key, values in self.keys.items():
            given = f"keys.{key}={list(values)}"
            if key == "training.steps":
                yield f"{given}: the budget gives the number of steps; drop it"
            if key == "training.seed":
                yield f"{given}: each run has one of seeds; write seeds: [0, 1]"
            if key.startswith("data.") or key in ("model.context", "model.patch"):
                yield f"{given}: losses on other data tune nothing; make schemes that differ"
            if list(values) != sorted(set(values)):
                yield f"{given}: give each value once, the smallest first"
            elif len({short(value) for value in values}) < len(values):
                yield f"{given}: two share the name of a folder; give values further apart"


class Trial(NamedTuple):
    """A run: a scheme, a value for each key that is tuned, and a seed."""

    scheme: str
    values: tuple[float, ...]
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        scheme = re.sub(r"[^A-Za-z0-9.]+", "_", self.scheme).strip("_")
        return "-".join((scheme, *map(short, self.values), f"seed{self.seed}"))


class Tuned(NamedTuple):
    """The best trial of a scheme, the losses of all its trials, and the keys whose best value
    is the first or the last, so that a better one may lie beyond."""

    best: Trial
    losses: dict[Trial, float]
    at_edge: list[str]


def short(value: float) -> str:
    """A value in the name of a folder."""
    return f"{value:.4g}"


def grid(scheme: str, keys: Mapping[str, Sequence[float]], seed: int) -> list[Trial]:
    """A trial for each combination of the values."""
    return [Trial(scheme, values, seed) for values in itertools.product(*keys.values())]


def tuned(
    scheme: str,
    sweep: Sweep | None,
    seed: int,
    loss: Callable[[Trial], float],
    possible: Callable[[Trial], bool],
) -> Tuned:
    """Tunes a scheme by the loss of its trials; without a sweep there is one trial. `possible`
    says whether a trial with further values can run."""
    keys = dict(sweep.keys) if sweep else {}
    left = sweep.extend if sweep else 0
    losses: dict[Trial, float] = {}
    trials = grid(scheme, keys, seed)
    while True:
        losses |= {trial: loss(trial) for trial in trials}
        best = min(losses, key=lambda trial: losses[trial])
        if math.isinf(losses[best]):
            return Tuned(best, losses, [])
        at_edge = []
        further = {}
        for number, (key, values) in enumerate(keys.items()):
            own = best.values[number]
            if values[0] < own < values[-1]:
                continue
            at_edge.append(key)
            end, before = (values[0], values[1]) if own == values[0] else values[:-3:-1]
            value = float(short(end**2 / before))
            if value.is_integer() and all(isinstance(x, int) for x in values):
                value = int(value)
            there = (*best.values[:number], value, *best.values[number + 1 :])
            taken = short(value) in map(short, values)
            if left and not taken and possible(best._replace(values=there)):
                further[key] = tuple(sorted((*values, value)))
        if not further:
            return Tuned(best, losses, at_edge)
        keys |= further
        trials = [t for t in grid(scheme, keys, seed) if t not in losses and possible(t)]
        left -= 1


def write_sweep(folder: Path, sweep: Sweep, chosen: list[Tuned], label: str) -> None:
    """Prints all losses of a sweep, and writes `sweep.json` and a figure for each key."""
    rows = [
        {"scheme": t.scheme, **dict(zip(sweep.keys, t.values, strict=True)), "loss": loss}
        for tuning in chosen
        for t, loss in tuning.losses.items()
    ]
    write_json(folder / "sweep.json", rows)
    show_table(rows, {"loss": label})
    for key in sweep.keys:
        curves = {}
        for best, _, _ in chosen:
            # Along the key, through the best trial.
            own = dict(zip(sweep.keys, best.values, strict=True)) | {"scheme": best.scheme}
            line = sorted(
                (row[key], row["loss"])
                for row in rows
                if math.isfinite(row["loss"]) and all(row[x] == own[x] for x in own if x != key)
            )
            if line:
                curves[best.scheme] = tuple(np.array(line).T)
        look = dict(title="What was tuned", marker="o", log="x")
        plot_curves(folder / f"sweep_{key}.png", curves, x=key, y=label, **look)
