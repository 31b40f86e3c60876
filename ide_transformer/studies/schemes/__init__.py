"""Schemes compared, by training with each or by solving one set of weights with each."""

from pathlib import Path

from ...errors import InputError
from ...training import read_tree, validated
from .comparison import (
    AbstractComparison,
    Faults,
    about_sources as about_sources,
    fingerprint as fingerprint,
)
from .solving import SolvingComparison
from .training import TrainingComparison


_MODES: dict[str, type[AbstractComparison]] = {
    "train": TrainingComparison,
    "solve": SolvingComparison,
}


def load_comparison(path: Path) -> AbstractComparison:
    """The comparison in a YAML file.

    **Raises:** `InputError` for all that is wrong in it.
    """
    tree = read_tree(path)
    mode = tree.get("mode")
    if str(mode) not in _MODES:
        raise InputError(f"{path}: mode={mode!r}; it must be {' or '.join(_MODES)}.")
    tree.setdefault("name", path.stem)
    if isinstance(tree.get("base"), str):
        tree["base"] = str(path.parent / tree["base"])
    kind = _MODES[str(mode)]
    faults = Faults()
    made = faults.each(lambda kind: validated(kind, tree, str(path)), [kind])
    if not made:
        faults.each(lambda kind: kind.check_parts(tree), [kind])
    faults.refuse()
    return made[kind]
