"""Prints a JSON schema of configurations, by which editors complete keys and mark mistakes.

It has all keys of a run or of a comparison, and the parts of installed packages. An editor with
a YAML language server reads it from the first line of a file:

    # yaml-language-server: $schema=schema.json
"""

import argparse
import json


EXAMPLES = """\
  ide-transformer schema > schema.json
  ide-transformer schema compare > compare.schema.json
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    about = "the file of a run (default), or of a comparison"
    parser.add_argument(
        "kind", nargs="?", choices=("run", "compare"), default="run", help=about
    )


def run(options: argparse.Namespace) -> None:
    from ..compare import MODES
    from ..training import Config
    from ..training.configuration.schema import schema_of

    kinds = [Config] if options.kind == "run" else MODES.values()
    print(json.dumps(schema_of(*kinds), indent=2))
