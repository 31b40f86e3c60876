"""Tokenises texts of any size into one sequence on disk, with the library `datasets`."""

import functools as ft
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from ..errors import InputError, at, whole_file
from ..packages import cache_folder, require
from .texts import files_of
from .tokenizers import (
    AbstractTokenizer,
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    load_tokenizer,
)


# Readers of tables, by the suffix of a file; other files are texts.
_KINDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}
_SUFFIXES_IN_FOLDERS = ".txt", ".md", ".jsonl", ".parquet", ".csv"
# Bytes of text in a cached piece, in a batch, in a row of a text file, and in the sample from
# which a byte-pair encoding is learned.
_PIECE = 2**26
_BATCH = 2**22
_BLOCK = 2**20
_LEARNED_FROM = 2**24


class Tokens:
    """A sequence of tokens on disk, in an Arrow table."""

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
        windows = np.empty((len(starts), length), np.int32)
        for row, start in zip(windows, starts, strict=True):
            index = np.searchsorted(self._ends, start, side="right")
            while len(row):
                # A negative index, from the end of the part.
                part = self._parts[index][start - self._ends[index] :][: len(row)]
                row[: len(part)] = part
                row = row[len(part) :]
                start += len(part)
                index += 1
        return windows

    def fingerprint(self) -> str:
        """A checksum of all texts, in their order."""
        return hashlib.sha256(self._checksums.tobytes()).hexdigest()


def learned_size(tokenizer: str | AbstractTokenizer, vocabulary: int | None) -> int:
    """The vocabulary of a byte-pair encoding to learn."""
    if vocabulary is not None and isinstance(tokenizer, str) and tokenizer != "bpe":
        raise InputError(
            f"data.vocabulary={vocabulary} is for byte pairs, but data.tokenizer is "
            f"{tokenizer}; set data.tokenizer=bpe, or drop the vocabulary."
        )
    return vocabulary or 512


def tokenize(
    path: str | Path, tokenizer: str | AbstractTokenizer, vocabulary: int, **source: Any
) -> tuple[Tokens, AbstractTokenizer, int]:
    """Tokenises texts, or reads their tokens from the cache. Returns the tokens, their
    tokenizer and its end token."""
    require("datasets", "datasets", "data.name=dataset reads texts by the library")
    import datasets
    import filelock

    folder = cache_folder() / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(tokenizer, str) and tokenizer not in ("characters", "bpe"):
        tokenizer = _load_tokenizer(tokenizer)
    key = _hash(str(Path(path).resolve()))
    # One process tokenises; others on this machine wait, then read the cache.
    with filelock.FileLock(folder / f"{key}.lock"):
        rows = _read_rows(Path(path), **source)
        if isinstance(tokenizer, str):
            tokenizer = _learn_tokenizer(tokenizer, vocabulary, rows, folder)
        tokenizer, end = tokenizer.ending()
        saved = folder / f"{key}.json"
        tokenizer.save(saved)
        encoding = _hash(rows._fingerprint, saved.read_text(encoding="utf-8"), str(end))
        dtype = np.min_scalar_type(tokenizer.vocabulary - 1).name
        columns: dict[str, Any] = {"tokens": datasets.List(datasets.Value(dtype))}
        columns["checksum"] = datasets.Value("int64")
        size = rows.data.nbytes
        num_pieces = min(-(-size // _PIECE), len(rows))
        pieces = [
            rows.shard(num_pieces, index, contiguous=True).map(
                ft.partial(_encode, tokenizer, end, dtype),
                batched=True,
                batch_size=max(1, _BATCH * len(rows) // size),
                remove_columns=rows.column_names,
                features=datasets.Features(columns),
                new_fingerprint=_hash(encoding, f"{index} of {num_pieces}"),
                desc=f"tokenising, part {index + 1} of {num_pieces}",
            )
            for index in range(num_pieces)
        ]
    return Tokens(datasets.concatenate_datasets(pieces).data.table), tokenizer, end


def _load_tokenizer(name: str) -> AbstractTokenizer:
    if Path(name).is_file():
        return load_tokenizer(name)
    with at(f"data.tokenizer={name} is not characters, bpe or a tokenizer"):
        return PretrainedTokenizer.from_pretrained(name)


def _encode(tokenizer: AbstractTokenizer, end: int, dtype: str, rows: Any) -> dict[str, Any]:
    """A batch of texts as tokens, with end tokens, and their checksums."""
    # In a table each text is a document, unless it is empty.
    has_ended = rows.get("ended") or map(bool, rows["text"])
    tokens = [
        np.append(tokenizer.encode(text or ""), [end] if ends else []).astype(dtype)
        for text, ends in zip(rows["text"], has_ended, strict=True)
    ]
    digests = [hashlib.blake2b(x.tobytes(), digest_size=8).digest() for x in tokens]
    checksums = [int.from_bytes(x, "little", signed=True) for x in digests]
    return {"tokens": tokens, "checksum": checksums}


def _read_rows(
    path: Path,
    column: str = "text",
    between: str | None = None,
    subset: str | None = None,
    split: str | None = None,
) -> Any:
    """The texts as the column `text`; for text files also whether a row `ended` a document."""
    import datasets

    files = files_of(path, _SUFFIXES_IN_FOLDERS) if path.exists() else []
    kinds = {_KINDS.get(file.suffix.lower(), "text") for file in files}
    options: dict[str, Any] = {"cache_dir": str(cache_folder() / "datasets")}
    if len(kinds) > 1:
        raise InputError(
            f"{path} has files of the kinds {', '.join(sorted(kinds))}; pass a folder of one."
        )
    is_hub_name = re.fullmatch(r"[\w.-]+/[\w.-]+", str(path))
    if not files and not (is_hub_name and path.suffix not in _SUFFIXES_IN_FOLDERS):
        raise InputError(
            f"{path}: there is no such file; pass a file, or owner/name of the hub."
        )
    usable = ("between",) if kinds == {"text"} else () if files else ("subset", "split")
    for name, value in dict(between=between, subset=subset, split=split).items():
        if value is not None and name not in usable:
            kind = "text files" if name == "between" else "data sets of the hub"
            raise InputError(f"data.options.{name}={value} is for {kind}; drop it for {path}.")
    try:
        if kinds == {"text"}:
            states = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
            types = {"text": datasets.Value("string"), "ended": datasets.Value("bool")}
            rows = datasets.Dataset.from_generator(
                _read_blocks,
                datasets.Features(types),
                gen_kwargs=dict(files=states, between=between),
                **options,
            )
        elif files:
            names = [str(file) for file in files]
            if kinds == {"csv"}:
                options["keep_default_na"] = False  # texts such as NA and null are texts
            rows = datasets.load_dataset(*kinds, data_files=names, split="train", **options)
        else:
            rows = datasets.load_dataset(str(path), subset, split=split or "train", **options)
    except Exception as error:  # `datasets` and its libraries raise many kinds
        while error.__cause__ is not None:
            error = error.__cause__
        source = "a file" if files else "a file or a data set of the hub, owner/name"
        raise InputError(f"{path}: cannot be read as {source} ({error}).") from None
    dtypes = {name: getattr(x, "dtype", "list") for name, x in rows.features.items()}
    if dtypes.get(column) not in ("string", "large_string"):
        columns = ", ".join(f"{name} ({dtype})" for name, dtype in dtypes.items())
        raise InputError(f"data.column={column}: set a column of texts; got {columns}.")
    if kinds != {"text"}:
        rows = rows.select_columns(column)
    if column != "text":
        rows = rows.rename_column(column, "text")
    if not any(rows["text"]):
        raise InputError(f"{path}: the texts are empty; there is nothing to learn.")
    return rows


def _read_blocks(files: Sequence[tuple[str, int, int]], between: str | None) -> Iterator[Any]:
    """The texts of files, about a MiB of whole lines at a time."""
    line = None if between is None else re.compile(rf"^{re.escape(between)}\r?(?:\n|\Z)", re.M)
    for file, *_ in files:
        empty = True
        with open(file, encoding="utf-8-sig", newline="\n") as opened:
            try:
                # Longer lines are cut.
                while block := opened.read(_BLOCK) + opened.readline(_BLOCK):
                    for index, text in enumerate(line.split(block) if line else [block]):
                        if index and not empty:
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


def _learn_tokenizer(name: str, vocabulary: int, rows: Any, folder: Path) -> AbstractTokenizer:
    """Learns the characters of all texts, or byte pairs from a sample spread over them."""
    size = rows.data.nbytes
    file = folder / f"{name}-{_hash(rows._fingerprint, f'{vocabulary}')}.json"
    if not file.exists():
        if name == "characters":
            batches = rows.iter(max(1, _BATCH * len(rows) // size))
            characters = set().union(*("".join(filter(None, x["text"])) for x in batches))
            tokenizer = CharacterTokenizer("".join(sorted(characters)))
        else:
            sample = rows.select(range(0, len(rows), -(-size // _LEARNED_FROM)))
            text = "".join(filter(None, sample["text"]))
            tokenizer = BytePairTokenizer.train(text, vocabulary)
        with whole_file(file) as part:
            tokenizer.save(part)
    return load_tokenizer(file)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
