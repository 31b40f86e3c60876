"""Tokenises texts of any size, to one sequence on disk, by the library `datasets`."""

import functools as ft
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ..errors import InputError, whole_file
from ..packages import cache_folder, require
from .texts import files_of
from .tokenizers import (
    AbstractTokenizer,
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    load_tokenizer,
)


# The kinds of files by their endings (any other is a text), and the files read of a folder.
_KINDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_OF_FOLDERS = ".txt", ".md", ".jsonl", ".parquet", ".csv"
# Bytes of text: that a killed process does again, in a batch, in a row of a text file, and from
# which a byte-pair encoding is learned.
_PIECE = 2**26
_BATCH = 2**22
_BLOCK = 2**20
_LEARNED_FROM = 2**24


class Tokens:
    """A sequence of tokens that stays on disk, in a table of Arrow."""

    def __init__(self, table: Any):
        self._parts = [x.flatten().to_numpy() for x in table["tokens"].chunks]
        self._ends = np.cumsum([len(part) for part in self._parts], dtype=np.int64)
        self._checksums = table["checksum"].to_numpy()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(
        self, starts: Int[np.ndarray, " windows"], length: int
    ) -> Int[np.ndarray, "windows length"]:
        """The `length` tokens that begin at each of `starts`."""
        found = np.empty((len(starts), length), np.int32)
        for row, start in zip(found, starts, strict=True):
            number = np.searchsorted(self._ends, start, side="right")
            while len(row):
                # Counted from the end of the part.
                part = self._parts[number][start - self._ends[number] :][: len(row)]
                row[: len(part)] = part
                row = row[len(part) :]
                start += len(part)
                number += 1
        return found

    def fingerprint(self) -> str:
        """A checksum of all texts, in their order."""
        return hashlib.sha256(self._checksums.tobytes()).hexdigest()


def learned_size(tokenizer: str | AbstractTokenizer, vocabulary: int | None) -> int:
    """The number of tokens of a byte-pair encoding to learn."""
    if vocabulary is not None and isinstance(tokenizer, str) and tokenizer != "bpe":
        raise InputError(
            f"data.vocabulary={vocabulary} is for byte pairs, but data.tokenizer is "
            f"{tokenizer}; write data.tokenizer: bpe, or leave the vocabulary out."
        )
    return vocabulary or 512


def tokenized(
    path: str | Path, tokenizer: str | AbstractTokenizer, vocabulary: int, **source: Any
) -> tuple[Tokens, AbstractTokenizer, int]:
    """The tokens of texts, kept in the cache, their tokenizer, and its end token."""
    require("datasets", "datasets", "data.name=dataset reads texts by the library")
    import datasets
    import filelock

    folder = cache_folder() / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    given = tokenizer if isinstance(tokenizer, AbstractTokenizer) else None
    if given is None and tokenizer not in ("characters", "bpe"):
        name = str(tokenizer)
        if Path(name).is_file():
            given = load_tokenizer(name)
        else:
            try:
                given = PretrainedTokenizer.from_pretrained(name)
            except InputError as error:
                raise InputError(
                    f"data.tokenizer={name!r}: {error} Or write characters or bpe."
                ) from None
    key = _hashed(str(Path(path).resolve()))
    # One process tokenises; others on the machine wait, and read what it wrote.
    with filelock.FileLock(folder / f"{key}.lock"):
        rows = _rows(Path(path), **source)
        ready, end = (given or _learned(str(tokenizer), vocabulary, rows, folder)).ending()
        ready.save(saved := folder / f"{key}.json")
        encoding = _hashed(rows._fingerprint, saved.read_text(encoding="utf-8"), str(end))
        dtype = np.min_scalar_type(ready.vocabulary - 1).name
        columns: dict[str, Any] = {"tokens": datasets.List(datasets.Value(dtype))}
        columns["checksum"] = datasets.Value("int64")
        size = rows.data.nbytes
        number = min(-(-size // _PIECE), len(rows))
        done = []
        for index in range(number):
            piece = rows.shard(number, index, contiguous=True)
            tokens = piece.map(
                ft.partial(_encoded, ready, end, dtype),
                batched=True,
                batch_size=max(1, _BATCH * len(rows) // size),
                remove_columns=rows.column_names,
                features=datasets.Features(columns),
                new_fingerprint=_hashed(encoding, f"{index} of {number}"),
                desc=f"tokenising, part {index + 1} of {number}",
            )
            done.append(tokens)
    return Tokens(datasets.concatenate_datasets(done).data.table), ready, end


def _encoded(tokenizer: AbstractTokenizer, end: int, dtype: str, rows: Any) -> dict[str, Any]:
    """A batch of texts as tokens, with end tokens, and their checksums."""
    # In a table each text ends, unless it is empty.
    ended = rows.get("ended") or map(bool, rows["text"])
    tokens = [
        np.append(tokenizer.encode(text or ""), [end] * ends).astype(dtype)
        for text, ends in zip(rows["text"], ended, strict=True)
    ]
    digests = [hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in tokens]
    checksums = [int.from_bytes(x, "little", signed=True) for x in digests]
    return {"tokens": tokens, "checksum": checksums}


def _rows(
    path: Path,
    column: str = "text",
    between: str | None = None,
    subset: str | None = None,
    split: str | None = None,
) -> Any:
    """The texts as the column `text`; for text files also whether a row `ended` a document."""
    import datasets

    files = files_of(path, _OF_FOLDERS) if path.exists() else []
    kinds = {_KINDS.get(file.suffix.lower(), "text") for file in files}
    options: dict[str, Any] = {"cache_dir": str(cache_folder() / "datasets")}
    if len(kinds) > 1:
        raise InputError(
            f"{path} has files of the kinds {', '.join(sorted(kinds))}; give a folder with one."
        )
    named = re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and path.suffix not in _OF_FOLDERS
    if not files and not named:
        raise InputError(f"{path}: no such file, and no owner/name of the hub.")
    empty = InputError(f"{path}: the texts are empty; there is nothing to learn.")
    if files and not any(file.stat().st_size for file in files):
        raise empty
    used = ("between",) if kinds == {"text"} else () if files else ("subset", "split")
    for name, value in dict(between=between, subset=subset, split=split).items():
        if value is not None and name not in used:
            kind = "text files" if name == "between" else "data sets of the hub"
            raise InputError(f"data.options.{name}={value} is for {kind}; drop it for {path}.")
    try:
        if kinds == {"text"}:
            states = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
            given = dict(files=states, between=between)
            kind = {"text": datasets.Value("string"), "ended": datasets.Value("bool")}
            rows = datasets.Dataset.from_generator(
                _blocks, datasets.Features(kind), gen_kwargs=given, **options
            )
        elif files:
            names = [str(file) for file in files]
            if kinds == {"csv"}:
                options["keep_default_na"] = False  # texts such as NA and null are texts
            rows = datasets.load_dataset(*kinds, data_files=names, split="train", **options)
        else:
            rows = datasets.load_dataset(str(path), subset, split=split or "train", **options)
    except Exception as error:  # the library and those below it have many
        while error.__cause__ is not None:
            error = error.__cause__
        if isinstance(error, InputError):
            raise error from None
        what = "cannot be read" if files else "no file, and no data set of the hub"
        raise InputError(f"{path}: {what} ({error}).") from None
    types = {name: getattr(x, "dtype", "list") for name, x in rows.features.items()}
    if types.get(column) not in ("string", "large_string"):
        there = ", ".join(f"{name} ({x})" for name, x in types.items())
        raise InputError(f"data.column={column}: no column of texts; there are {there}.")
    if kinds != {"text"}:
        rows = rows.select_columns(column)
    if column != "text":
        rows = rows.rename_column(column, "text")
    if not any(rows["text"]):
        raise empty
    return rows


def _blocks(files: Sequence[tuple[str, int, int]], between: str | None) -> Iterator[Any]:
    """The texts of files in whole lines, about a MiB at a time."""
    line = None if between is None else re.compile(rf"^{re.escape(between)}\r?(?:\n|\Z)", re.M)
    for file, *_ in files:
        empty = True
        with open(file, encoding="utf-8-sig", newline="\n") as opened:
            try:
                # Longer lines are cut.
                while block := opened.read(_BLOCK) + opened.readline(_BLOCK):
                    for number, text in enumerate(line.split(block) if line else [block]):
                        if number and not empty:
                            yield {"text": "", "ended": True}
                            empty = True
                        if text:
                            yield {"text": text, "ended": False}
                            empty = False
            except UnicodeDecodeError as error:
                near = error.object[max(0, error.start - 20) : error.start + 1]
                raise InputError(
                    f"{file}: {error.reason} at the end of {near!r}; the text must be UTF-8."
                ) from None
        if not empty:
            yield {"text": "", "ended": True}


def _learned(name: str, vocabulary: int, rows: Any, folder: Path) -> AbstractTokenizer:
    """Learns the characters of all texts, or byte pairs from a sample spread over them."""
    size = rows.data.nbytes
    file = folder / f"{name}-{_hashed(rows._fingerprint, f'{vocabulary}')}.json"
    if not file.exists():
        if name == "characters":
            batches = rows.iter(max(1, _BATCH * len(rows) // size))
            seen = set().union(*("".join(filter(None, x["text"])) for x in batches))
            tokenizer = CharacterTokenizer("".join(sorted(seen)))
        else:
            some = rows.select(range(0, len(rows), -(-size // _LEARNED_FROM)))
            text = "".join(filter(None, some["text"]))
            tokenizer = BytePairTokenizer.train(text, vocabulary)
        with whole_file(file) as part:
            tokenizer.save(part)
    return load_tokenizer(file)


def _hashed(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
