"""Every option of a tiny checkpoint changed in every way, one at a time: `transformers` and
this package must agree, or this package must refuse the file and say why.

A test makes a `Fuzz` of a checkpoint and checks each of `changes`:

    fuzz = Fuzz(folder, theirs, ours, bound)
    wrong = [fuzz.check(change) for change in changes(fuzz.options, *fuzz.known())]

Models that are equal have equal outputs, so each is computed once.
"""

import copy
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.pretrained import load_pretrained
from ide_transformer.pretrained.checkpoint import Checkpoint


REMOVED = object()
Outputs = dict[str, np.ndarray]

# Values of options that are words, by a part of the option's name.
_WORDS = {
    "act": ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"),
    "pooler_act": ("tanh", "relu"),
    "position_embedding_type": ("absolute", "relative_key", "relative_key_query"),
    "feed_forward_proj": ("relu", "gated-gelu", "gated-silu", "gelu", "gated-relu"),
    "rope_type": ("default", "linear", "llama3", "dynamic", "yarn", "longrope", "proportional"),
    "layer_types": ("full_attention", "sliding_attention", "attention"),
    "dtype": ("float32", "float64", "bfloat16"),
    "problem_type": ("regression", "single_label_classification"),
}


class Change(NamedTuple):
    """An option and its other value; the path leads into the objects of the file."""

    path: tuple[str, ...]
    value: Any

    def __str__(self) -> str:
        value = "removed" if self.value is REMOVED else f"= {self.value!r}"
        return f"{'.'.join(self.path)} {value}"


def changes(options: dict[str, Any], *names: str) -> Iterator[Change]:
    """All changes of the options of a file.

    **Arguments:**

    - `names`: options that are known but not in the file.
    """
    yield Change(("an_option_of_tomorrow",), 1)
    absent = {name: None for name in names if name not in options}
    for name, value in (options | absent).items():
        if name != "model_type":
            yield from _changes_at((name,), value, present=name in options)


def some(changes: Iterator[Change], thorough: bool) -> Iterator[Change]:
    """All changes, or every eighth: in each run of the heavy tests the same ones."""
    return itertools.islice(changes, 0, None, 1 if thorough else 8)


def _changes_at(path: tuple[str, ...], value: Any, *, present: bool) -> Iterator[Change]:
    if present:
        yield Change(path, REMOVED)
    for other in _others(path[-1], value):
        if not _same(other, value) or not present:
            yield Change(path, other)
    if isinstance(value, dict) and path[-1] not in ("id2label", "label2id"):
        yield Change((*path, "an_option_of_tomorrow"), 1)
        for name, inner in value.items():
            yield from _changes_at((*path, name), inner, present=True)


def _others(name: str, value: Any) -> Iterator[Any]:
    """Values that an option could have instead, sensible and not."""
    yield None
    for part, words in _WORDS.items():
        if part == name or (part == "act" and ("_act" in name or "activation" in name)):
            yield from words
    match value:
        case bool():
            yield from (not value, int(not value), str(value))
        case int():
            yield from (value + 1, value // 2, 1, 0, -1, str(value), float(value), True)
        case float():
            yield from (0.0, 1.0, -1.0, math.nan, math.inf, "1.0")
        case str():
            yield from ("nonsense", 1, True)
        case list():
            yield from ([], value[:-1], value + value[-1:], "nonsense")
            for word in _WORDS.get(name, ()):
                yield from ([word] * len(value), [*value[:-1], word])
        case dict():
            yield from ({}, "nonsense", [])
        case None:
            yield from (True, 3, 0.5, "nonsense", {})


def changed(options: dict[str, Any], change: Change) -> dict[str, Any]:
    options = copy.deepcopy(options)
    *outer, name = change.path
    within = options
    for one in outer:
        within = within[one]
    if change.value is REMOVED:
        del within[name]
    else:
        within[name] = change.value
    return options


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


def check_refused(folder: Path, options: dict[str, Any], wrong: list[tuple[str, Any]]) -> None:
    """Each of these options with that value is refused by its name."""
    for name, value in wrong:
        (folder / "config.json").write_text(json.dumps(options | {name: value}))
        with pytest.raises(ide.InputError, match=rf"\b{name} = "):
            load_pretrained(folder)


class Fuzz:
    """A checkpoint whose options are changed.

    **Arguments:**

    - `folder`: the checkpoint.
    - `theirs`: the outputs by `transformers` of the checkpoint in a folder.
    - `ours`: the outputs of a model of this package; it may be compiled.
    - `bound`: on their difference, relative to the largest number.
    """

    def __init__(
        self,
        folder: Path,
        theirs: Callable[[Path], Outputs],
        ours: Callable[[Any], Outputs],
        bound: float,
    ):
        self.folder, self.theirs, self.ours, self.bound = folder, theirs, ours, bound
        self.options = self.read()
        self.computed: dict[Any, Outputs] = {}
        self.counts: Counter[str] = Counter()
        self.unchanged = load_pretrained(folder)
        difference = largest_difference(theirs(folder), self._ours(self.unchanged))
        assert difference < bound, f"unchanged: {difference}"

    def read(self) -> dict[str, Any]:
        return json.loads((self.folder / "config.json").read_text())

    def write(self, options: dict[str, Any]) -> None:
        (self.folder / "config.json").write_text(json.dumps(options))

    def known(self) -> list[str]:
        """The options that the family here asks for, and those it knows to be harmless."""
        checkpoint = Checkpoint.open(self.folder)
        return sorted(checkpoint.options.asked.union(checkpoint.family.harmless.split()))

    def check(self, change: Change) -> str | None:
        """The fault of a change; `None` where both agree, or the file is refused by the
        name of the option, or of the tensors that do not fit it."""
        self.write(changed(self.options, change))
        try:
            outcome, wrong = self._outcome(change)
        finally:
            self.write(self.options)
        self.counts[outcome] += 1
        return f"{change}: {wrong}" if wrong else None

    def _outcome(self, change: Change) -> tuple[str, str | None]:
        try:
            model = load_pretrained(self.folder)
        except ide.InputError as error:
            known = ("tensors", *change.path)
            named = any(name in str(error) for name in known)
            return "refused", None if named else f"refused without its name: {error}"
        except Exception as error:
            return "failed", f"{type(error).__name__}: {error}"
        try:
            ours = self._ours(model)
        except ide.InputError as error:
            # The model takes no inputs of this length.
            return "refused", None if "context" in str(error) else str(error)
        try:
            theirs = self.theirs(self.folder)
        except Exception as error:
            # The file means nothing to transformers; here it has to mean what it did.
            same = eqx.tree_equal(model, self.unchanged)
            why = f"{type(error).__name__}: {str(error)[:200]}"
            return "harmless", None if same else f"only transformers refuses it: {why}"
        difference = largest_difference(theirs, ours)
        wrong = None if difference < self.bound else f"outputs differ by {difference:.1e}"
        return "agree", wrong

    def _ours(self, model: Any) -> Outputs:
        leaves, structure = jax.tree.flatten(model)
        key = structure, tuple(np.asarray(x).tobytes() for x in leaves)
        if key not in self.computed:
            self.computed[key] = {k: np.asarray(x) for k, x in self.ours(model).items()}
        return self.computed[key]


def largest_difference(theirs: Outputs, ours: Outputs) -> float:
    """Relative to the largest number of each output."""
    if any(x.shape != np.shape(ours.get(name)) for name, x in theirs.items()):
        return math.inf
    pairs = [(x, ours[name]) for name, x in theirs.items()]
    differences = [np.abs(x - y).max() / np.abs(x).max() for x, y in pairs]
    return float(np.nan_to_num(max(differences), nan=math.inf))
