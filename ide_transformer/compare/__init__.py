"""Comparisons of schemes, orders and runs, with tables and figures."""

from pathlib import Path

from ..errors import ConfigError, did_you_mean, shown
from ..training import read_section, read_tree
from ..training.configuration.key import Key
from .comparison import AbstractComparison as AbstractComparison, fingerprint as fingerprint
from .measure import (
    Data as Data,
    measure as measure,
    spread as spread,
    standard_error as standard_error,
)
from .solve_schemes import SolvingComparison
from .train_schemes import TrainingComparison


MODES: dict[str, type[AbstractComparison]] = {
    "train": TrainingComparison,
    "solve": SolvingComparison,
}


def load_comparison(path: Path) -> AbstractComparison:
    """Loads the comparison in a YAML file.

    **Raises:** `InputError` that names every wrong key.
    """
    tree = read_tree(path)
    mode = str(tree.get("mode"))
    if mode not in MODES:
        key = Key("mode", tree.places)
        hint = did_you_mean(mode, MODES)
        raise ConfigError(f"{key}={shown(mode)}: unknown.{hint} Known: {', '.join(MODES)}.")
    tree.setdefault("name", path.stem)
    if isinstance(tree.get("base"), str):
        tree["base"] = str(path.parent / tree["base"])
    return read_section(MODES[mode], tree)
