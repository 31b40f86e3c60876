"""JSON of others: its size, depth and numbers are looked at before it is believed."""

import json
import math
from pathlib import Path
from typing import Any

from ..errors import InputError


# Bytes. The largest known, the index of a model of a trillion weights, has 13 MB.
MOST_JSON = 32 * 2**20


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    **Raises:** `InputError` that names the file, see `json_object`.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_JSON + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
    return json_object(content, file)


def json_object(content: str | bytes, file: Path) -> dict[str, Any]:
    """The object in a text, which is a file or a part of it.

    **Raises:** `InputError` for anything else, for a text of more than 32 MiB, for keys that
    occur twice, and for numbers that are not finite.
    """
    if len(content) > MOST_JSON:
        raise InputError(f"{file} holds JSON of more than {MOST_JSON:,} bytes; it is refused.")
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_checked_object)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise InputError(f"{file} is no JSON: {reason}.") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no object of options.")
    return value


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    for name, value in pairs:
        if not _finite(value):
            raise ValueError(f"{name} = {value} is not finite")
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in values if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return values


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
