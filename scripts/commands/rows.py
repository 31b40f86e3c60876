"""The runs of a study, in a file that other processes write to as well."""

import json
from pathlib import Path
from typing import Any

from ide_transformer import InputError
from ide_transformer.reporting import write_json


Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    try:
        return list(json.loads(path.read_bytes())) if path.is_file() else []
    except (ValueError, TypeError):
        raise InputError(f"{path} is damaged; restore it, or remove it.") from None


def find_row(path: Path, key: Row, made_of: str) -> Row | None:
    """The row that has the entries of `key`, if there is one."""
    for row in read_rows(path):
        if key.items() <= row.items():
            if row.get("made_of", made_of) != made_of:
                raise InputError(
                    f"{path}: the row of {key} was made with other settings or on other data; "
                    "restore them, or give another file by --json and another folder by --runs."
                )
            return row
    return None


def write_row(path: Path, key: Row, row: Row) -> None:
    """Writes a row, in the place of the one that has the entries of `key`."""
    # Others may have written theirs in the meantime.
    others = [x for x in read_rows(path) if not key.items() <= x.items()]
    write_json(path, [*others, row])
