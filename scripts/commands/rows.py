"""The rows of a study, in a file that several processes may write."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ide_transformer import InputError
from ide_transformer.commands.options import results_file
from ide_transformer.reporting import show_table, write_json


Row = dict[str, Any]


def add_file(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`, the file of a study."""
    about = "the runs that are done"
    parser.add_argument("--json", type=results_file, required=True, help=about)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, which need not exist."""
    return list(json.loads(path.read_bytes())) if path.is_file() else []


def find_row(path: Path, key: Row, made_of: str) -> Row | None:
    """The row that has the entries of `key`, if there is one."""
    for row in read_rows(path):
        if key.items() <= row.items():
            if row.get("made_of", made_of) != made_of:
                raise InputError(
                    f"{path}: the row of {key} was made with other settings or on other data; "
                    "restore them, or give another file by --json."
                )
            return row
    return None


def write_row(path: Path, key: Row, row: Row) -> None:
    """Writes a row; it replaces the row that has the entries of `key`."""
    others = [x for x in read_rows(path) if not key.items() <= x.items()]
    write_json(path, [*others, row])


def show(tables: Mapping[str, list[Row]]) -> None:
    """Prints tables by their names."""
    for name, table in tables.items():
        print(name)
        show_table(table)
