import argparse
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ide_transformer.commands.options import figure_file, results_file

from .problem import Shape
from .timing import Rounds, Rows


class Command(NamedTuple):
    """A command of scripts/benchmark.py.

    - `measure`: from arguments and rounds to rows with the same columns; its docstring is help.
    - `options`: by name what is so by default: a size, a list of sizes, a text, which has no
      flag, or a tuple of choices, of which a user may give some.
    """

    name: str
    example: str
    rounds: int
    measure: Callable[[argparse.Namespace, Rounds], Rows]
    options: dict[str, Any]

    def add_to(self, commands: Any) -> None:
        """Adds the command to the subparsers of the script."""
        about = inspect.getdoc(self.measure) or ""
        parser = commands.add_parser(
            self.name,
            help=" ".join(re.split("[.:]", about)[0].split()),
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  python scripts/benchmark.py {self.name} {self.example}",
        )
        parser.set_defaults(command=self)
        parser.add_argument("--rounds", type=int, default=self.rounds)
        parser.add_argument(
            "--json", type=results_file, help="also write the rows to this file"
        )
        parser.add_argument("--figure", type=figure_file, help="also draw them")
        for name, default in self.options.items():
            flag, given = f"--{name.replace('_', '-')}", dict[str, Any](default=default)
            match default:
                case str():
                    flag, given["nargs"] = name, "?"
                case tuple():
                    given = dict(action="append", choices=default)
                case list():
                    given |= dict(type=positive, nargs="+")
                case _:
                    given["type"] = positive
            parser.add_argument(flag, **given)


def positive(text: str) -> int:
    """A size on the command line."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def sizes(*, depth: list[int], batch: int, context: int) -> dict[str, Any]:
    """The options of `shape`, and the layers."""
    return dict(depth=depth, batch=batch, context=context, width=128, heads=4)


def shape(options: argparse.Namespace) -> Shape:
    """The sizes of the state that the options of `sizes` say."""
    return Shape(options.batch, options.context, options.width, options.heads)
