"""Tunes keys, such as the learning rate, for each scheme before the comparison."""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from ..arguments import Bound, above
from ..errors import ConfigError
from ..reporting import show_table, write_json
from ..training import Section, section
from ..training.configuration.section import CountOrZero, Seed, not_empty


RATE = "optimizer.learning_rate"

# Some keys need integers, so these stay integers.
Values = Annotated[
    tuple[Annotated[int | float, above(0)], ...],
    Bound("two or more", lambda x: len(x) > 1, {"minItems": 2}),
]


@section
class Sweep(Section):
    """The section `sweep`. Each scheme is trained with all combinations of the values for one
    seed. The other seeds use the combination with the lowest validation loss.

    - `keys`: the values to try for each key of the run, such as `optimizer.learning_rate`.
    - `extend`: while the best value is the first or the last, tries a further value in the same
      ratio, at most this many times.
    - `seed`: the seed of these runs, by default the first of the comparison. A seed that is not
      in the comparison is for tuning only, and not reported.
    """

    keys: Annotated[dict[str, Values], not_empty]
    extend: CountOrZero = 2
    seed: Seed | None = None

    def __post_init__(self) -> None:
        for key, values in self.keys.items():
            where = f"{self.key / 'keys' / key}={list(values)}"
            if key == "training.steps":
                raise ConfigError(
                    f"{where}: the budget sets the number of steps; remove this key."
                )
            if key == "training.seed":
                raise ConfigError(
                    f"{where}: a sweep cannot tune seeds; set seeds: [0, 1] instead."
                )
            if key.startswith("data.") or key in ("model.context", "model.patch"):
                raise ConfigError(
                    f"{where}: losses on other data do not compare; use separate schemes."
                )
            if list(values) != sorted(set(values)):
                raise ConfigError(f"{where}: values must be different and in ascending order.")
            if len({folder_text(value) for value in values}) < len(values):
                raise ConfigError(
                    f"{where}: two share the name of a folder; use values further apart."
                )


class Trial(NamedTuple):
    """A run of a scheme with a value for each tuned key and a seed."""

    scheme: str
    values: tuple[float, ...]
    seed: int

    @property
    def name(self) -> str:
        """The name of the folder of the run."""
        scheme = re.sub(r"[^A-Za-z0-9.]+", "_", self.scheme).strip("_")
        return "-".join((scheme, *map(folder_text, self.values), f"seed{self.seed}"))


class Tuned(NamedTuple):
    """The result of tuning a scheme. `at_edge` has the keys whose best value is the first or
    the last."""

    best: Trial
    losses: dict[Trial, float]
    at_edge: list[str]


def folder_text(value: float) -> str:
    """A value in the name of a folder."""
    return f"{value:.4g}"


def grid(scheme: str, keys: Mapping[str, Sequence[float]], seed: int) -> list[Trial]:
    """A trial for each combination of the values."""
    return [Trial(scheme, values, seed) for values in itertools.product(*keys.values())]


def tune(
    scheme: str,
    sweep: Sweep | None,
    seed: int,
    loss: Callable[[Trial], float],
    can_run: Callable[[Trial], bool],
) -> Tuned:
    """Tunes a scheme by the loss of its trials; without a sweep there is one trial. `can_run`
    says whether a trial with further values is valid."""
    keys = dict(sweep.keys) if sweep else {}
    extensions_left = sweep.extend if sweep else 0
    losses: dict[Trial, float] = {}
    trials = grid(scheme, keys, seed)
    while True:
        losses |= {trial: loss(trial) for trial in trials}
        best = min(losses, key=lambda trial: losses[trial])
        if math.isinf(losses[best]):
            return Tuned(best, losses, [])
        at_edge = []
        extended = {}
        for index, (key, values) in enumerate(keys.items()):
            best_value = best.values[index]
            if values[0] < best_value < values[-1]:
                continue
            at_edge.append(key)
            end, before = (values[0], values[1]) if best_value == values[0] else values[:-3:-1]
            value = float(folder_text(end**2 / before))
            if value.is_integer() and all(isinstance(x, int) for x in values):
                value = int(value)
            further = best._replace(
                values=(*best.values[:index], value, *best.values[index + 1 :])
            )
            is_new = folder_text(value) not in map(folder_text, values)
            if extensions_left and is_new and can_run(further):
                extended[key] = tuple(sorted((*values, value)))
        if not extended:
            return Tuned(best, losses, at_edge)
        keys |= extended
        trials = [t for t in grid(scheme, keys, seed) if t not in losses and can_run(t)]
        extensions_left -= 1


def write_sweep(folder: Path, sweep: Sweep, results: list[Tuned], label: str) -> None:
    """Prints all losses of a sweep, and writes `sweep.json` and a figure for each key."""
    from ..figures import plot_curves

    rows = [
        {"scheme": t.scheme, **dict(zip(sweep.keys, t.values, strict=True)), "loss": loss}
        for result in results
        for t, loss in result.losses.items()
    ]
    write_json(folder / "sweep.json", rows)
    show_table(rows, {"loss": label})
    for key in sweep.keys:
        curves = {}
        for best, _, _ in results:
            # A line along this key through the best trial.
            fixed = dict(zip(sweep.keys, best.values, strict=True)) | {"scheme": best.scheme}
            del fixed[key]
            line = sorted(
                (row[key], row["loss"])
                for row in rows
                if math.isfinite(row["loss"]) and all(row[x] == fixed[x] for x in fixed)
            )
            if line:
                curves[best.scheme] = tuple(np.array(line).T)
        look = dict(title="Tuned values", marker="o", log="x")
        plot_curves(folder / f"sweep_{key}.png", curves, x=key, y=label, **look)
