"""Builds the documentation site into site/, strictly: formulas are typeset, tutorials executed,
and every internal link has to lead somewhere."""

import argparse
import subprocess
import sys

from commands import start
from documentation.links import check_links
from documentation.names import check_built
from documentation.pages import ROOT, write_pages, write_tables


EXAMPLES = """\
  python scripts/docs.py --draft
  python scripts/docs.py --tables
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--draft", action="store_true", help="do not execute the tutorials")
    extent.add_argument("--short", action="store_true", help="with a tenth of their training")
    extent.add_argument("--tables", action="store_true", help="only renew the tables in docs/")
    parser.add_argument("--serve", action="store_true", help="serve the site on this machine")


def run(arguments: argparse.Namespace) -> None:
    if arguments.tables:
        write_tables()
        return
    write_pages(draft=arguments.draft, short=arguments.short)
    zensical = [sys.executable, "-m", "zensical"]
    if arguments.serve:
        subprocess.run([*zensical, "serve"], cwd=ROOT, check=True)
        return
    subprocess.run([*zensical, "build", "--clean", "--strict"], cwd=ROOT, check=True)
    check_links(ROOT / "site")
    check_built(ROOT / "site" / "reference" / "api")


if __name__ == "__main__":
    start(sys.modules[__name__])
