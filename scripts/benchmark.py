"""Measures what this package costs, in time and in memory, against the alternatives.

Alternatives take turns, so that what disturbs the machine disturbs all of them; figures are
medians over the rounds, with the range of the middle half as their spread.
"""

import argparse

from rich.progress import Progress

import benchmarks
from benchmarks.shared.report import report
from benchmarks.shared.timing import Rounds
from commands import run_script
from ide_transformer import InputError
from ide_transformer.reporting import Terminal


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/benchmark.py march --depth 48 --json march.json\n"
        "  python scripts/benchmark.py gradient --help",
    )
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    for command in benchmarks.commands():
        command.add_to(commands)
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        raise InputError(
            f"rounds={arguments.rounds}: a median with its spread needs at least 2."
        )
    with Progress(transient=True, console=Terminal()) as progress:
        task = progress.add_task("measuring", total=None)
        rounds = Rounds(arguments.rounds, lambda done: progress.advance(task))
        rows = arguments.command.measure(arguments, rounds)
    report(rows, table=arguments.json, figure=arguments.figure)


if __name__ == "__main__":
    run_script(main)
