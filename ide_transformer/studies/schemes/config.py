"""The configuration of a comparison."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...errors import InputError
from ...training.config import (
    Config,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    SolverConfig,
)
from ...training.reading import read_tree, validated


class Budget(Section):
    """What every run of a comparison may spend.

    - `unit`: `field_evaluations` (one is every operator once, over the whole depth as many
      as the scheme makes), `steps` of the optimiser, or `seconds` of training.
    - `amount`: how much.
    """

    unit: Literal["field_evaluations", "steps", "seconds"] = "steps"
    amount: PositiveFloat


class TrainingComparison(Section):
    """Each scheme trained from scratch on the same data, seeds and budget.

    - `base`: a configuration of a run, relative to this file.
    - `schemes`: name to the sections in which the scheme differs from the base.
    """

    mode: Literal["train"]
    name: str
    base: Path
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0,)
    budget: Budget
    schemes: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]


class SolverChoice(Section):
    """A scheme and the numbers of steps, or the tolerances, with which it solves."""

    solver: SolverConfig
    steps: tuple[PositiveInt, ...] = ()
    tolerances: tuple[PositiveFloat, ...] = ()


class SolvingComparison(Section):
    """One set of weights solved by many schemes.

    - `run`: the folder of a trained run.
    - `samples`: held-out samples on which error and loss are measured.
    - `reference`: the tight solve against which errors are measured.
    - `tolerance`: the relative error at which schemes are compared.
    """

    mode: Literal["solve"]
    name: str
    run: Path
    samples: PositiveInt = 64
    rounds: PositiveInt = 5
    reference: SolverConfig = SolverConfig(kind="dopri8", steps_per_interval=16)
    tolerance: PositiveFloat = 1e-3
    schemes: Annotated[dict[str, SolverChoice], Field(min_length=1)]


CompareConfig = TrainingComparison | SolvingComparison


def load_compare_config(path: Path) -> CompareConfig:
    """The comparison in a YAML file.

    **Raises:** `InputError` that names every key in error.
    """
    tree = read_tree(path)
    kinds: dict[Any, type[TrainingComparison] | type[SolvingComparison]] = {
        "train": TrainingComparison,
        "solve": SolvingComparison,
    }
    mode = tree.get("mode")
    if mode not in kinds:
        raise InputError(f"{path}: mode={mode!r}; it must be train or solve.")
    tree.setdefault("name", path.stem)
    config = validated(kinds[mode], tree, str(path))
    if isinstance(config, TrainingComparison):
        base = path.parent / config.base
        return config.model_copy(update={"base": base})
    return config


def scheme_config(base: dict[str, Any], change: dict[str, Any], where: str) -> Config:
    """The configuration of a run: the base with the sections of a scheme laid over it. A
    scheme that gives a `solver` gives the whole of it."""
    tree = {name: dict(v) if isinstance(v, dict) else v for name, v in base.items()}
    for section, values in change.items():
        replaced = section == "solver" or not isinstance(values, dict)
        tree[section] = values if replaced else {**tree.get(section, {}), **values}
    return validated(Config, tree, where)
