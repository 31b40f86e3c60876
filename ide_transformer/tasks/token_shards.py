"""Shards of tokens: from parts of text files to one file of tokens each."""

import concurrent.futures as futures
import functools as ft
import hashlib
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import InputError, whole_file
from .token_folder import Shard
from .tokenizers import AbstractTokenizer


# Bytes of text that are encoded at once.
_CHUNK = 2**20


class Piece(NamedTuple):
    """The lines of a text file that begin at the bytes `start … stop - 1`; `last` for those at
    its end."""

    file: Path
    start: int
    stop: int
    last: bool


class Encoding(NamedTuple):
    """The texts of shards become tokens of `dtype`, with `end` after each document: after each
    file and, where it is given, in the place of each line `between`."""

    tokenizer: AbstractTokenizer
    end: int
    dtype: str
    between: str | None


def planned(files: list[Path], shard_bytes: int) -> list[list[Piece]]:
    """For each shard the pieces of text in it, of about so many bytes."""
    shards: list[list[Piece]] = [[]]
    room = shard_bytes
    for file in files:
        size, start = file.stat().st_size, 0
        while start < size:
            stop = min(start + room, size)
            shards[-1].append(Piece(file, start, stop, stop == size))
            start, room = stop, room - (stop - start)
            if not room:
                shards.append([])
                room = shard_bytes
    return [pieces for pieces in shards if pieces]


def write_shards(
    folder: Path,
    shards: list[list[Piece]],
    encoding: Encoding,
    processes: int,
    on_progress: Callable[[int, int], Any],
) -> list[Shard]:
    """Writes the shards that are not there yet."""
    sizes = [sum(piece.stop - piece.start for piece in shard) for shard in shards]
    numbers = range(len(shards))
    there = {n: x for n in numbers if (x := _finished(folder, n)) is not None}
    left = [n for n in numbers if n not in there]
    before, total = sum(sizes[n] for n in there), sum(sizes)
    on_progress(before, total)
    if processes == 1:

        def on_bytes(size: int) -> None:
            nonlocal before
            before += size
            on_progress(before, total)

        for n in left:
            there[n] = _write_shard(folder, n, shards[n], encoding, on_bytes)
        return [there[n] for n in numbers]
    context = multiprocessing.get_context("spawn")
    done, most = context.Value("q", 0), min(processes, len(left) or 1)
    start = context, _start_worker, (os.getpid(), done)
    with futures.ProcessPoolExecutor(most, *start) as pool:
        write = ft.partial(_write_shard_in_worker, folder, encoding=encoding)
        jobs = {pool.submit(write, n, shards[n]): n for n in left}
        while futures.wait(jobs, 0.5, futures.FIRST_EXCEPTION).not_done:
            on_progress(before + done.value, total)
            if any(job.done() and job.exception() for job in jobs):
                pool.shutdown(cancel_futures=True)
                break
        for job, n in jobs.items():
            if not job.cancelled():
                there[n] = job.result()
    return [there[n] for n in numbers]


def _write_shard(
    folder: Path,
    number: int,
    pieces: list[Piece],
    encoding: Encoding,
    on_bytes: Callable[[int], Any],
) -> Shard:
    """Writes the tokens of some pieces and then what they are; a process that is killed on the
    way leaves no shard. `on_bytes` gets each number of bytes of text that are done."""
    file, whole = folder / f"{number:05}.bin", hashlib.sha256()
    count = documents = 0
    with whole_file(file) as part, part.open("wb") as written:
        for piece in pieces:
            for tokens in _tokens(piece, encoding, on_bytes):
                content = tokens.astype(np.dtype(encoding.dtype).newbyteorder("<")).tobytes()
                whole.update(content)
                written.write(content)
                count += len(tokens)
                documents += int(np.count_nonzero(tokens == encoding.end))
        written.flush()
        os.fsync(written.fileno())
    shard = Shard(file=file.name, tokens=count, documents=documents, sha256=whole.hexdigest())
    with whole_file(file.with_suffix(".json")) as part:
        part.write_text(shard.model_dump_json() + "\n", encoding="utf-8")
    return shard


def _finished(folder: Path, number: int) -> Shard | None:
    """The shard that `_write_shard` wrote; `None` where it is not complete."""
    file = folder / f"{number:05}.json"
    if not file.is_file() or not file.with_suffix(".bin").is_file():
        return None
    try:
        return Shard.model_validate_json(file.read_bytes())
    except ValueError:
        return None


def _tokens(
    piece: Piece, encoding: Encoding, on_bytes: Callable[[int], Any]
) -> Iterator[np.ndarray]:
    """The tokens of a piece, some at a time, with the end of each document."""
    end = np.array([encoding.end], np.uint32)
    empty = _begins_document(piece, encoding.between)  # nothing of it has been written
    for block in texts_of(piece):
        for number, text in enumerate(_documents(block, encoding.between)):
            if number:
                if not empty:
                    yield end
                empty = True
            if text:
                yield encoding.tokenizer.encode(text)
                empty = False
        on_bytes(len(block.encode()))
    if piece.last and not empty:
        yield end


def _begins_document(piece: Piece, between: str | None) -> bool:
    """Whether the first line of a piece is the first one of a document."""
    if not piece.start or between is None:
        return not piece.start
    line = between.encode()
    with piece.file.open("rb") as file:
        _seek_first_line(file, piece)
        end = file.tell()
        # One byte more than the line and its end, to see whether it begins there.
        file.seek(max(0, end - len(line) - 3))
        before = file.read(end - file.tell())
    pattern = rb"^" + re.escape(line) + rb"(?:\r?\n)?\Z"
    return re.search(pattern, before, flags=re.MULTILINE) is not None


def _seek_first_line(file: BinaryIO, piece: Piece) -> None:
    """Goes to the first line that begins in a piece, or to the first one after it."""
    if piece.start:
        # A line that begins before it belongs to the piece before.
        file.seek(piece.start - 1)
        while (line := file.readline(_CHUNK)) and not line.endswith(b"\n"):
            pass


def _documents(block: str, between: str | None) -> list[str]:
    """Whole lines, cut at the lines between documents."""
    if between is None:
        return [block]
    return re.split(rf"^{re.escape(between)}(?:\r?\n|\Z)", block, flags=re.MULTILINE)


def texts_of(piece: Piece) -> Iterator[str]:
    """The text of a piece in whole lines, about a mebibyte at a time."""
    with piece.file.open("rb") as file:
        _seek_first_line(file, piece)
        while (at := file.tell()) < piece.stop:
            block = file.read(min(_CHUNK, piece.stop - at))
            while not block.endswith(b"\n") and (more := file.readline(_CHUNK)):
                block += more
                if len(block) > 2 * _CHUNK:  # a line without end is cut between characters
                    cut = _boundary(block, _CHUNK)
                    yield _decoded(piece.file, at, block[:cut])
                    at, block = at + cut, block[cut:]
            yield _decoded(piece.file, at, block)


def _boundary(block: bytes, cut: int) -> int:
    """The last place up to `cut` at which a character of UTF-8 begins."""
    return next((i for i in range(cut, cut - 4, -1) if block[i] & 0xC0 != 0x80), cut)


def _decoded(file: Path, at: int, block: bytes) -> str:
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: {error.reason} at byte {at + error.start}; the text must be UTF-8. "
            "Convert it, for example by iconv, or leave the file out."
        ) from None


# The bytes that all processes have done.
_done: list[Any] = []


def _start_worker(parent: int, done: Any) -> None:
    """Prepares a process, which ends when its parent does; that may be before it is here."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _done.append(done)


def _write_shard_in_worker(
    folder: Path, number: int, pieces: list[Piece], encoding: Encoding
) -> Shard:
    def on_bytes(size: int) -> None:
        with _done[0].get_lock():
            _done[0].value += size

    return _write_shard(folder, number, pieces, encoding, on_bytes)


def _watch(parent: int) -> None:
    """A pool does not notice that the process which made it was killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
