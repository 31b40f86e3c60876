"""Each figure in a table of README and docs/ stands in the stored rows that its section links
to, or the section names the command that makes it. On pages of results rows decide where there
are some; elsewhere whole numbers say orders and sizes, and a link may lead to such a page."""

import functools
import json
import re

import numpy as np
import pytest

from tests.helpers import ROOT


DOCS = ROOT / "docs"
RESULTS = DOCS / "results"
OF_RESULTS = {DOCS / "results.md", *RESULTS.glob("*.md")}
# The tables of the reference are made from the code; tables of a `default` are of settings.
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", *(x for x in DOCS.rglob("*.md") if REFERENCE not in x.parents)]
FENCE = re.compile(r"^```.*?^```$", flags=re.M | re.S)
COMMAND = re.compile(r"^```(?:sh|text|python)$|`(?:ide-transformer|python) [^`]+`", flags=re.M)
LINK = re.compile(r"\]\(([^)\s]+\.json)\)")
TO_RESULTS = re.compile(r"\]\(([^)\s]*\bresults(?:/\w+)?\.md)")
TABLE = re.compile(r"^\|(?!.*\| default \|).*\n\|[-| :]+\n((?:\|.*\n)+)", flags=re.M)
NUMBER = re.compile(
    r"(?<![\w.])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+]?\d+)?(?![\w/])", flags=re.A
)
# What tells rows apart that do not differ in their seeds alone.
SETTINGS = {"optimizer.learning_rate", "rate", "steps", "horizon"}
SETTINGS |= {"lengths", "side", "tolerance"}


def figures(text):
    """The numbers in a text: as printed, their value, and half a unit of their last digit."""
    for printed in NUMBER.findall(text.replace("−", "-")):
        digits, _, exponent = printed.replace(",", "").partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        yield printed, float(printed.replace(",", "")), 0.5 * unit


def stored_rows(node, names=frozenset(), depth=0):
    """The rows of a JSON file: the names of each, the settings that it shares with other seeds,
    and its numbers. Names are the texts of a row and the keys above it; a scheme `with` a
    recipe has the name of the scheme too."""
    if isinstance(node, list):
        for child in node:
            yield from stored_rows(child, names, depth)
    elif isinstance(node, dict):
        texts = {x for key, x in node.items() if isinstance(x, str) and key != "about"}
        names = names | texts | {text.split(" with ")[0] for text in texts}
        numbers = {"texts": [value for text in texts for _, value, _ in figures(text)]}
        for key, child in node.items():
            values = child if isinstance(child, list) else [child]
            if all(isinstance(x, int | float) for x in values):
                numbers[key] = [] if key == "seed" else values
            elif isinstance(child, dict | list):
                # Keys at the top, and those within a row, name no row.
                below = names | {key} if depth and not texts else names
                yield from stored_rows(child, below, depth + 1)
        yield names, str([x for key, x in node.items() if key in SETTINGS]), numbers


@functools.cache
def stored_numbers(file):
    """The numbers in the rows of a file by each of their names, and of all rows by None; also
    mean, standard deviation, median and quartiles of rows that differ in their seeds alone."""
    by_name, groups = {None: []}, {}
    for names, settings, numbers in stored_rows(json.loads(file.read_text(encoding="utf-8"))):
        for key, values in numbers.items():
            groups.setdefault((names, settings, key), []).extend(values)
    for (names, *_), values in groups.items():
        if len(values) > 1:
            summary = [np.mean(values), np.std(values, ddof=1)]
            values = [*values, *summary, *np.quantile(values, [0.25, 0.5, 0.75])]
        for name in (None, *names):
            by_name.setdefault(name, []).extend(values)
    return by_name


def linked(page, text):
    """The files of rows that a text links to; outside of results also by way of their pages."""
    pages = [] if page in OF_RESULTS else [page.parent / x for x in TO_RESULTS.findall(text)]
    files = [page.parent / link for link in LINK.findall(text)]
    return files + [file for x in pages for file in linked(x.resolve(), x.read_text("utf-8"))]


def lost_figures(row, page, files, scales):
    """The figures in a row of a table that no stored row explains: all have to be numbers of
    rows of one name, or of the files that the row itself links to."""
    cells = "|".join(re.sub(r"`[^`]*`|\]\([^)]*\)", "", row).split("|")[2:])
    row_files = linked(page, row)
    tables = [stored_numbers(file) for file in row_files or files]

    def lost_by(name):
        stored = np.outer(scales, [x for table in tables for x in table.get(name, ())])
        return [
            printed
            for printed, value, half_unit in figures(cells)
            if (page in OF_RESULTS or "." in printed)
            and not np.any(abs(value - stored) <= 1.001 * half_unit)
        ]

    names = {None} if row_files or not tables else {x for table in tables for x in table if x}
    return min(map(lost_by, names), key=len)


def lost(page, text):
    """What a page does not explain: the heading, the figure and the row of each."""
    # Parts are stored as fractions or as percentages.
    scales = [1, 100] if re.search("%|percent", text) else [1]
    losses = []
    text = FENCE.sub(lambda block: block[0].replace("\n#", "\n"), text)
    for section in re.split(r"^(?=#+ )", text, flags=re.M):
        files = linked(page, section)
        if COMMAND.search(section) and not (files and page in OF_RESULTS):
            continue
        for row in "".join(TABLE.findall(section)).splitlines():
            # A row that cites a paper has the paper's figures.
            if "arxiv.org" not in row and (of_row := lost_figures(row, page, files, scales)):
                losses.append(f"{section.splitlines()[0]}: {', '.join(of_row)} in {row}")
    return losses


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_figures_in_tables_stand_in_stored_rows_or_beside_their_command(page):
    losses = lost(page, page.read_text(encoding="utf-8"))
    assert not losses, "\n".join(losses)
