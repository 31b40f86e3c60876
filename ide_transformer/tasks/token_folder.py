"""Folders of token files, which are read in windows and never as a whole."""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError
from ..packages import checksum, known_checksum
from .tokenizers import AbstractTokenizer, load_tokenizer


INDEX, TOKENIZER = "tokens.json", "tokenizer.json"

_Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Shard(_Record):
    """A file of tokens: little-endian integers, one after the other."""

    file: Annotated[str, Field(pattern=r"^[0-9]+\.bin$")]
    tokens: _Count
    documents: _Count
    sha256: str


class TokenIndex(_Record):
    """`tokens.json` of a folder: what is in the files of tokens. One of the `vocabulary` is
    `end`, the token after each document."""

    format: Literal[1] = 1
    dtype: Literal["uint16", "uint32"]
    vocabulary: Annotated[int, Field(gt=0)]
    end: _Count
    tokens: _Count
    documents: _Count
    tokenizer_sha256: str
    shards: tuple[Shard, ...]


class TokenFolder:
    """The tokens in a folder that `scripts/tokenize_text.py` wrote, one sequence over all
    files.

    A file is mapped into memory for the time of one read only: pages of a map that stays are
    counted as memory of the process. Its checksum is compared before its first read, and again
    where it was written since. `InputError` is raised where the folder is not complete, or a
    file has another size.

    **Attributes:** `path`, `index`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.index = _read_index(self.path)
        self._dtype = np.dtype(self.index.dtype).newbyteorder("<")
        for shard in self.index.shards:
            file, expected = self.path / shard.file, shard.tokens * self._dtype.itemsize
            size = file.stat().st_size if file.is_file() else None
            if size != expected:
                has = "is missing" if size is None else f"has {size} bytes"
                raise InputError(
                    f"{file} {has}; {INDEX} says {expected} bytes. Copy the folder again, or "
                    "tokenise again, into a new folder."
                )
        sizes = [shard.tokens for shard in self.index.shards]
        # ends[i] is the number of tokens in the first i shards.
        self._ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(
        self, starts: Int[np.ndarray, " windows"], length: int
    ) -> Int[np.ndarray, "windows length"]:
        """`length` tokens from each of `starts` on; a window may lie over several files.
        `InputError` is raised for a damaged file, and a token that the vocabulary lacks."""
        found = np.empty((len(starts), length), np.int32)
        first = np.searchsorted(self._ends, starts, side="right") - 1
        last = np.searchsorted(self._ends, starts + length, side="left") - 1
        touched = {n for a, b in zip(first, last, strict=True) for n in range(a, b + 1)}
        for number in sorted(touched):
            self._fill(found, starts, number)
        return found

    def _fill(self, found: np.ndarray, starts: np.ndarray, number: int) -> None:
        """Writes that part of the windows which is in one of the files."""
        shard, begin, end = self.index.shards[number], *self._ends[number : number + 2]
        if not shard.tokens:
            return
        file, length, vocabulary = self.path / shard.file, found.shape[1], self.index.vocabulary
        self._compare(shard, known_checksum(file))
        tokens = np.memmap(file, self._dtype, mode="r", shape=shard.tokens)
        for row in np.flatnonzero((starts < end) & (starts + length > begin)):
            low, high = max(starts[row], begin), min(starts[row] + length, end)
            part = tokens[low - begin : high - begin]
            if part.max() >= vocabulary:
                raise InputError(
                    f"{file} has the token {part.max()}, and the vocabulary in {INDEX} only "
                    f"{vocabulary}. Tokenise again, into a new folder."
                )
            found[row, low - starts[row] : high - starts[row]] = part

    @property
    def tokenizer(self) -> AbstractTokenizer:
        """The tokenizer that made the tokens; `InputError` where it was changed since."""
        file = self.path / TOKENIZER
        if not file.is_file() or checksum(file) != self.index.tokenizer_sha256:
            raise InputError(
                f"{file} is missing or was changed since the tokens were made; restore it, or "
                "tokenise again, into a new folder."
            )
        tokenizer = load_tokenizer(file)
        ready, end = tokenizer.ending()
        if (ready.vocabulary, end) != (self.index.vocabulary, self.index.end):
            raise InputError(
                f"{self.path / INDEX}: vocabulary={self.index.vocabulary} and end="
                f"{self.index.end}, but {file} has {ready.vocabulary} tokens and the end "
                f"{end}; restore the file, or tokenise again, into a new folder."
            )
        return tokenizer

    def fingerprint(self) -> str:
        """A checksum of all tokens, from those of the files."""
        sums = [self.index.dtype, *(shard.sha256 for shard in self.index.shards)]
        return hashlib.sha256("\n".join(sums).encode()).hexdigest()

    def verify(self) -> None:
        """Reads all files and compares their checksums; `InputError` names a damaged one."""
        for shard in self.index.shards:
            self._compare(shard, checksum(self.path / shard.file))

    def _compare(self, shard: Shard, found: str) -> None:
        if found != shard.sha256:
            raise InputError(
                f"{self.path / shard.file} is damaged: its SHA-256 is not the one in {INDEX}. "
                "Copy it again, or delete the folder and tokenise again."
            )


def _read_index(path: Path) -> TokenIndex:
    file = path / INDEX
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder.")
    if not file.is_file():
        raise InputError(
            f"{path} is no complete folder of tokens: it has no {INDEX}. Make it, or finish "
            f"it, by python scripts/tokenize_text.py TEXTS… --output {path}"
        )
    try:
        return TokenIndex.model_validate_json(file.read_bytes())
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{file} is damaged ({reason}); tokenise again.") from None
