"""Keys that are tuned for each scheme before it is compared."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from ...figures import plot_curves
from ...reporting import write_json
from ...training import Section
from ...training.types import CountOrZero


Values = Annotated[tuple[PositiveFloat, ...], Field(min_length=2, strict=False)]


class Sweep(Section):
    """The section `sweep`: keys that are tuned for each scheme. All combinations of the values
    are trained with the first seed, and the one with the lowest validation loss with the other
    seeds too.

    - `keys`: from a key of the run, such as `optimizer.learning_rate`, to the values to try.
    - `extend`: where the best value is the least or the greatest one, the values go on in the
      same ratio, at most so often.
    """

    keys: Annotated[dict[str, Values], Field(min_length=1)]
    extend: CountOrZero = 2

    @model_validator(mode="after")
    def _rising(self):
        for key, values in self.keys.items():
            if list(values) != sorted(set(values)):
                raise ValueError(
                    f"keys.{key}={list(values)}: give each value once, the least first"
                )
        return self


class Trial(NamedTuple):
    """A run: a scheme, a value for each key that is tuned, and a seed."""

    scheme: str
    values: tuple[float, ...]
    seed: int

    @property
    def name(self) -> str:
        """A folder name; names of schemes may have parentheses and spaces."""
        scheme = re.sub(r"[^A-Za-z0-9.]+", "_", self.scheme).strip("_")
        return "-".join((scheme, *(f"{x:.4g}" for x in self.values), f"seed{self.seed}"))


class Tuned(NamedTuple):
    """The best trial of a scheme, the loss of each that was made, and the keys for which the
    best value is the least or the greatest one, so that a better one may lie beyond."""

    best: Trial
    losses: dict[Trial, float]
    at_edge: list[str]


def grid(scheme: str, keys: Mapping[str, Sequence[float]], seed: int) -> list[Trial]:
    """A trial for each combination of the values."""
    return [Trial(scheme, values, seed) for values in itertools.product(*keys.values())]


def tuned(scheme: str, sweep: Sweep | None, seed: int, loss: Callable[[Trial], float]) -> Tuned:
    """Tunes a scheme; without a sweep there is one trial."""
    keys = dict(sweep.keys) if sweep else {}
    left = sweep.extend if sweep else 0
    losses: dict[Trial, float] = {}
    while True:
        losses |= {t: loss(t) for t in grid(scheme, keys, seed) if t not in losses}
        best = min(losses, key=lambda trial: losses[trial])
        beyond = {
            key: further
            for (key, values), value in zip(keys.items(), best.values, strict=True)
            if (further := _beyond(values, value)) is not None
        }
        if math.isinf(losses[best]):
            return Tuned(best, losses, [])
        if not beyond or not left:
            return Tuned(best, losses, list(beyond))
        keys |= {key: tuple(sorted((*keys[key], value))) for key, value in beyond.items()}
        left -= 1


def _beyond(values: Sequence[float], best: float) -> float | None:
    """The next value in the same ratio, where the best is the least or the greatest."""
    if values[0] < best < values[-1]:
        return None
    end, neighbor = (values[0], values[1]) if best == values[0] else (values[-1], values[-2])
    return float(f"{end**2 / neighbor:.4g}")


def write_sweep(folder: Path, sweep: Sweep, chosen: list[Tuned], label: str) -> None:
    """Writes `sweep.json`, and a figure for each key, with the loss called by its `label`."""
    tried = [trial for tuning in chosen for trial in tuning.losses.items()]
    rows = [
        {
            "scheme": trial.scheme,
            **dict(zip(sweep.keys, trial.values, strict=True)),
            "loss": loss if math.isfinite(loss) else None,
        }
        for trial, loss in tried
    ]
    write_json(folder / "sweep.json", rows)
    for number, key in enumerate(sweep.keys):
        curves = {}
        for best, losses, _ in chosen:
            # Along the key, through the best trial.
            line = {
                trial.values[number]: loss
                for trial, loss in losses.items()
                if math.isfinite(loss)
                and _without(trial.values, number) == _without(best.values, number)
            }
            if line:
                curves[best.scheme] = tuple(np.array(sorted(line.items())).T)
        path = folder / f"sweep_{key}.png"
        plot_curves(path, curves, x=key, y=label, marker="o", log="x")


def _without(values: tuple[float, ...], number: int) -> tuple[float, ...]:
    return values[:number] + values[number + 1 :]
