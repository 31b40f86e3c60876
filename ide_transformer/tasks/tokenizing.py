"""Texts of any size to folders of tokens."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import filelock

from ..arguments import PositiveInt, checked
from ..errors import InputError, whole_file
from ..packages import checksum
from ..pretrained.files import read_json
from .texts import files_of
from .token_folder import INDEX, TOKENIZER, Shard, TokenFolder, TokenIndex
from .token_shards import Encoding, Piece, planned, texts_of, write_shards
from .tokenizers import (
    AbstractTokenizer,
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    load_tokenizer,
)


# Tokenizers that are learned from the texts, and the bytes that the second one is learned from.
_LEARNED = "characters", "bpe"
_LEARNED_FROM = 2**24
_PLAN = "plan.json"


@checked
def tokenize_files(
    texts: Sequence[str | Path],
    output: str | Path,
    *,
    tokenizer: str = "characters",
    vocabulary: PositiveInt = 512,
    between: str | None = None,
    processes: PositiveInt = 1,
    shard_bytes: PositiveInt = 2**26,
    on_progress: Callable[[int, int], Any] = lambda done, total: None,
) -> TokenFolder:
    """Writes the tokens of text files into a folder, which the task `token_files` reads. Texts
    are read in whole lines, about a mebibyte at a time, so that memory does not grow with them.

    A token of its own ends each document. The result does not depend on the number of
    processes. Where a process was killed, the same call goes on: complete shards are kept.

    **Arguments:**

    - `texts`: files, and folders of which all `.txt` and `.md` files are read, in UTF-8.
    - `output`: the folder, a new one or one of the same call.
    - `tokenizer`: `characters`; `bpe` for a byte-pair encoding learned from a sample of 16 MiB
      that is spread over all texts; the path of a tokenizer of a run or of such a folder; or a
      checkpoint, see `load_pretrained`.
    - `vocabulary`: tokens of the byte-pair encoding.
    - `between`: a line that stands between documents; default: each file is a document.
    - `processes`: how many work at the same time.
    - `shard_bytes`: bytes of text in a file of tokens.
    - `on_progress`: called with the bytes that are done, and all.

    **Raises:** `InputError` for texts that are missing, empty or no UTF-8, and for a folder
    that was begun with other texts or options.
    """
    files, folder = [file for text in texts for file in files_of(Path(text))], Path(output)
    if not any(file.stat().st_size for file in files):
        given = ", ".join(map(str, texts)) or "no files"
        raise InputError(f"{given}: the texts are empty; there is nothing to tokenise.")
    if between is not None and (not between.strip() or len(between.splitlines()) > 1):
        raise InputError(f"between={between!r}: give one line that is not empty.")
    shards = planned(files, shard_bytes)
    plan = {
        "sources": [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files],
        "tokenizer": tokenizer,
        "vocabulary": vocabulary if tokenizer == "bpe" else None,
        "between": between,
        "shard_bytes": shard_bytes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = filelock.FileLock(folder / "lock", timeout=0).acquire()
    except filelock.Timeout:
        raise InputError(f"{folder}: another process is writing it; wait for it.") from None
    with lock:
        # A name that stands for none is refused before anything is begun.
        given = None if (folder / TOKENIZER).is_file() else _given(tokenizer)
        _begin(folder, plan)
        if not (folder / INDEX).is_file():
            if not (folder / TOKENIZER).is_file():
                pieces = [piece for shard in shards for piece in shard]
                ready, _ = (given or _learned(tokenizer, vocabulary, pieces)).ending()
                with whole_file(folder / TOKENIZER) as part:
                    ready.save(part)
            ready, end = load_tokenizer(folder / TOKENIZER).ending()
            dtype = "uint16" if ready.vocabulary <= 2**16 else "uint32"
            encoding = Encoding(ready, end, dtype, between)
            done = write_shards(folder, shards, encoding, processes, on_progress)
            _finish(folder, done, encoding)
    return TokenFolder(folder)


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Writes down what is to be done, or compares it with what was begun."""
    file = folder / _PLAN
    if not file.is_file():
        strange = [x.name for x in folder.iterdir() if x.name != "lock"]
        if strange:
            raise InputError(
                f"{folder} has other files, such as {min(strange)}; give a new folder."
            )
        with whole_file(file) as part:
            part.write_text(json.dumps(plan) + "\n", encoding="utf-8")
        return
    try:
        begun = read_json(file)
    except InputError as error:
        raise InputError(f"{error} Delete the folder, or give a new one.") from None
    changed = [name for name in plan if begun.get(name) != plan[name]]
    if changed:
        raise InputError(
            f"{folder} was begun with other {' and '.join(changed)}; give what it was begun "
            "with, delete the folder, or give a new one."
        )


def _given(name: str) -> AbstractTokenizer | None:
    """The tokenizer that a name stands for; `None` for one that is to be learned."""
    if name in _LEARNED:
        return None
    if Path(name).is_file():
        return load_tokenizer(Path(name))
    try:
        return PretrainedTokenizer.from_pretrained(name)
    except InputError as error:
        known = " or ".join(_LEARNED)
        raise InputError(f"tokenizer={name!r}: {error} Or write {known}.") from None


def _learned(name: str, vocabulary: int, pieces: list[Piece]) -> AbstractTokenizer:
    if name == "characters":
        seen: set[str] = set()
        for piece in pieces:
            for text in texts_of(piece):
                seen |= set(text)
        return CharacterTokenizer("".join(sorted(seen)))
    return BytePairTokenizer.train("".join(_sample(pieces)), vocabulary)


def _sample(pieces: list[Piece]) -> list[str]:
    """Lines from all parts of the texts, about `_LEARNED_FROM` bytes."""
    whole = sum(piece.stop - piece.start for piece in pieces)
    # At most some thousand places, each of which is a file that is opened.
    part, step = min(1.0, _LEARNED_FROM / whole), max(2**18, whole // 2**12)
    found: list[str] = []
    for piece in pieces:
        for start in range(piece.start, piece.stop, step):
            length = max(1, int(part * min(step, piece.stop - start)))
            found += texts_of(piece._replace(start=start, stop=start + length))
    return found


def _finish(folder: Path, shards: list[Shard], encoding: Encoding) -> None:
    index = TokenIndex(
        dtype=encoding.dtype,  # pyright: ignore[reportArgumentType]
        vocabulary=encoding.tokenizer.vocabulary,
        end=encoding.end,
        tokens=sum(shard.tokens for shard in shards),
        documents=sum(shard.documents for shard in shards),
        tokenizer_sha256=checksum(folder / TOKENIZER),
        shards=tuple(shards),
    )
    with whole_file(folder / INDEX) as part:
        part.write_text(index.model_dump_json(indent=1) + "\n", encoding="utf-8")
