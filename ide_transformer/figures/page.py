"""Pages of HTML that need nothing but themselves."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from ..errors import InputError, printable, whole_file
from ..reporting import OF_TEXTS, Row, table_cells


class Part(NamedTuple):
    """A part of a page: figures by their captions, drawn here or PNG files, a table of `rows`
    with `headings` for some columns, and preformatted texts by their headings, each of which
    may be missing."""

    title: str
    about: str = ""
    figures: Mapping[str, Figure | Path] = {}
    rows: Sequence[Row] = ()
    texts: Mapping[str, str] = {}
    headings: Mapping[str, str] = {}


def write_page(path: Path, title: str, about: str, parts: Sequence[Part]) -> None:
    """Writes a page, all of it or nothing, with styles and figures inside. It is light or dark
    as its reader's system is."""
    body = "\n".join(map(_part, parts))
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1><p>{escape(about)}</p>\n{body}\n</body>\n</html>\n"
    )
    with whole_file(path) as written:
        written.write_text(page, encoding="utf-8")


def escape(text: str) -> str:
    """A text in HTML, in which nothing changes how it is read."""
    return html.escape(printable(text, OF_TEXTS))


def _part(part: Part) -> str:
    about = f"<p>{escape(part.about)}</p>" * bool(part.about)
    figures = (
        f'<figure><img alt="{escape(caption)}" src="{_inline(figure)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, figure in part.figures.items()
    )
    texts = (
        f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>" for name, text in part.texts.items()
    )
    pieces = f"<h2>{escape(part.title)}</h2>", about, _table(part), *figures, *texts
    return "\n".join(filter(None, pieces))


def _table(part: Part) -> str:
    if not part.rows:
        return ""
    headings, cells = table_cells(part.rows, part.headings)
    tagged = [("th", headings), *(("td", line) for line in cells)]
    lines = "\n".join(
        f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in line)}</tr>"
        for tag, line in tagged
    )
    return f'<div class="wide"><table>{lines}</table></div>'


def _inline(figure: Figure | Path) -> str:
    """A figure in a URL of its own."""
    if isinstance(figure, Path):
        kind = "png"
        content = figure.read_bytes()
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise InputError(f"{figure} is no PNG file; remove it.")
    else:
        file = io.BytesIO()
        figure.savefig(file, format="svg")
        kind = "svg+xml"
        content = file.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; }
body { font: 16px/1.5 system-ui, sans-serif; }
h2 { margin-top: 2rem; border-top: 1px solid #8888; padding-top: .6rem; font-size: 1.2rem; }
figure { margin: 1rem 0; }
img { max-width: 100%; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #8888; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
"""
