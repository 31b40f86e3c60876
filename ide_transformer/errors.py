"""The exception for input that a user can correct, and help for error messages."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


# Advice for an unfinished run; comparisons replace it.
GO_ON = "go on with --resume"


class InputError(ValueError):
    """Raised for input that the user can correct.

    The message names the value, where it came from, why it is wrong and what to use instead.
    Commands print it without a traceback and exit with status 2.
    """


class ConfigError(InputError):
    """An `InputError` whose message begins with a key of a configuration and its place."""


def printable(text: str, allowed: str = "\n") -> str:
    """Escapes characters that a terminal would obey or hide, such as escape sequences, marks of
    the writing direction and halves of surrogate pairs. The `allowed` characters stay."""
    return "".join(x if x.isprintable() or x in allowed else repr(x)[1:-1] for x in text)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A hint at the closest of the names; empty if none is close."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def shown(value: Any) -> str:
    """A value for an error message: one line, at most 80 characters."""
    return short(repr(value))


def short(name: str, most: int = 80) -> str:
    """A text for an error message: one line, at most 80 characters, or another number."""
    text = printable(name[: most + 1], "")
    return text if len(text) <= most else f"{text[: most - 4]} …"


@contextlib.contextmanager
def at(place: object, value: str | None = None) -> Iterator[None]:
    """Puts a place before the message of an `InputError`: a text, such as `sample 3`, or the
    key of a configuration, with its value if it says more. A message that begins with a key
    already stays as it is."""
    try:
        yield
    except ConfigError:
        raise
    except InputError as error:
        kind = InputError if isinstance(place, str) else ConfigError
        where = place if value is None else f"{place}={value}"
        raise kind(f"{where}: {error}") from None
    except Exception as error:
        error.add_note(f"({place})")
        raise


@contextlib.contextmanager
def naming(file: str | Path) -> Iterator[None]:
    """Adds a file to an `OSError` without one, such as the error of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(file)) from None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file that replaces `path` once it is written."""
    part = path.with_name(f"{path.name}.tmp")
    with naming(part):
        yield part
    part.replace(path)
