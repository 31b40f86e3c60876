from pathlib import Path

from ...errors import InputError
from ...training.reading import read_tree, validated
from .comparison import AbstractComparison
from .solving import SolvingComparison
from .training import TrainingComparison


_MODES: dict[str, type[AbstractComparison]] = {
    "train": TrainingComparison,
    "solve": SolvingComparison,
}


def load_comparison(path: Path) -> AbstractComparison:
    """The comparison in a YAML file.

    **Raises:** `InputError` that names every key in error.
    """
    tree = read_tree(path)
    mode = tree.get("mode")
    kind = _MODES.get(str(mode))
    if kind is None:
        raise InputError(f"{path}: mode={mode!r}; it must be {' or '.join(_MODES)}.")
    tree.setdefault("name", path.stem)
    return validated(kind, tree, str(path)).placed(path.parent)
