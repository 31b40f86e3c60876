"""The runs of a study, in a file that other processes write to as well."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ide_transformer import InputError
from ide_transformer.commands.options import results_file
from ide_transformer.reporting import show_table, write_json
from ide_transformer.studies import about_sources


Row = dict[str, Any]


def add_files(parser: argparse.ArgumentParser, study: str) -> None:
    """The options of the files of a study."""
    parser.add_argument(
        "--json", type=results_file, required=True, help="the runs that are done"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs", study), help="their folder")


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


def show(tables: Mapping[str, list[Row]], runs: Iterable[tuple[str, str]]) -> None:
    """Prints tables, and by which code the runs were made, each with its code."""
    for name, table in tables.items():
        print(name)
        show_table(table)
    made: dict[str, list[str]] = {}
    for run, code in runs:
        made.setdefault(code, []).append(run)
    print(about_sources(made))
