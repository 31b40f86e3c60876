"""Comparisons of schemes, orders and runs, with tables and figures."""

from pathlib import Path

from ..errors import InputError
from ..training import read_section, read_tree
from .comparison import AbstractComparison as AbstractComparison, fingerprint as fingerprint
from .measure import (
    Data as Data,
    measure as measure,
    spread as spread,
    standard_error as standard_error,
)
from .solve_schemes import SolvingComparison
from .train_schemes import TrainingComparison


_MODES: dict[str, type[AbstractComparison]] = {
    "train": TrainingComparison,
    "solve": SolvingComparison,
}


def load_comparison(path: Path) -> AbstractComparison:
    """Loads the comparison in a YAML file.

    **Raises:** `InputError` that names every wrong key.
    """
    tree = read_tree(path)
    mode = str(tree.get("mode"))
    if mode not in _MODES:
        raise InputError(f"{path}: mode={mode!r} must be {' or '.join(_MODES)}.")
    tree.setdefault("name", path.stem)
    if isinstance(tree.get("base"), str):
        tree["base"] = str(path.parent / tree["base"])
    return read_section(_MODES[mode], tree)
