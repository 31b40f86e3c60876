import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .problem import Shape
from .timing import measure


Rows = list[dict[str, Any]]


class Rounds(NamedTuple):
    """The arguments `rounds` and `on_round` of `alternate`."""

    rounds: int
    on_round: Callable[[int], Any] = lambda done: None


class Command(NamedTuple):
    """A command of scripts/benchmark.py.

    - `name`: on the command line.
    - `about`: one line of help.
    - `example`: arguments of an example.
    - `rounds`: how many by default.
    - `add_arguments`: adds the arguments of its own to a parser.
    - `measure`: from the arguments and the rounds to rows with the same columns.
    """

    name: str
    about: str
    example: str
    rounds: int
    add_arguments: Callable[[argparse.ArgumentParser], None]
    measure: Callable[[argparse.Namespace, Rounds], Rows]

    def add_to(self, commands: Any) -> None:
        """Adds the command to the subparsers of the script."""
        parser = commands.add_parser(
            self.name,
            help=self.about,
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  python scripts/benchmark.py {self.name} {self.example}",
        )
        parser.set_defaults(command=self)
        parser.add_argument("--rounds", type=int, default=self.rounds)
        parser.add_argument("--json", type=Path, help="also write the rows to this file")
        parser.add_argument("--figure", type=Path, help="also draw them, as PNG")
        self.add_arguments(parser)


def positive(text: str) -> int:
    """A size on the command line."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def measured(programs: dict[str, tuple], rounds: Rounds, **columns: Any) -> Rows:
    """Rows of `Measurement` of some programs, with `columns` and `name`; see `measure`."""
    results = measure(programs, **rounds._asdict())
    return [{**columns, "name": name, **result._asdict()} for name, result in results.items()]


def add_sizes(
    parser: argparse.ArgumentParser, *, depth: list[int], batch: int, context: int
) -> None:
    """Adds the arguments of `shape` and `--depth`."""
    parser.add_argument("--depth", type=positive, nargs="+", default=depth, help="layers")
    parser.add_argument("--batch", type=positive, default=batch)
    parser.add_argument("--context", type=positive, default=context)
    parser.add_argument("--width", type=positive, default=128)
    parser.add_argument("--heads", type=positive, default=4)


def shape(arguments: argparse.Namespace) -> Shape:
    """The sizes of the state that the arguments of `add_sizes` say."""
    sizes = arguments.batch, arguments.context, arguments.width, arguments.heads
    return Shape(*sizes)
