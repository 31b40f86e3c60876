"""Builds the documentation site into site/, strictly: formulas are typeset, tutorials executed,
and every internal link has to lead somewhere.

examples:
  python scripts/docs.py --draft
  python scripts/docs.py --tables
"""

import argparse
import subprocess
import sys

from documentation.links import check_links
from documentation.names import check_built
from documentation.pages import ROOT, write_pages, write_tables
from ide_transformer.commands import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--draft", action="store_true", help="do not execute the tutorials")
    extent.add_argument(
        "--short", action="store_true", help="execute them with a tenth of their training"
    )
    extent.add_argument(
        "--tables", action="store_true", help="only renew the generated tables in docs/"
    )
    parser.add_argument("--serve", action="store_true", help="serve the site on this machine")
    arguments = parser.parse_args()
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
    run_script(main)
