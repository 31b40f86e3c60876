"""Pages of HTML in one file."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape as html_escape
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from ..errors import InputError, printable, whole_file
from ..reporting import OF_TEXTS, Row, table_cells


class Part(NamedTuple):
    """A part of a page: figures or PNG files by caption, a table, and texts by heading."""

    title: str
    about: str = ""
    figures: Mapping[str, Figure | Path] = {}
    rows: Sequence[Row] = ()
    texts: Mapping[str, str] = {}
    headings: Mapping[str, str] = {}


def write_page(path: Path, title: str, about: str, parts: Sequence[Part]) -> None:
    """Writes a page with its styles and figures, all of it or nothing."""
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
    """Escapes a text for HTML."""
    return html_escape(printable(text, OF_TEXTS))


def _part(part: Part) -> str:
    pieces = [f"<h2>{escape(part.title)}</h2>"]
    if part.about:
        pieces.append(f"<p>{escape(part.about)}</p>")
    if part.rows:
        headings, cells = table_cells(part.rows, part.headings)
        lines = [_line("th", headings), *(_line("td", line) for line in cells)]
        table = "\n".join(lines)
        pieces.append(f'<div class="wide"><table>{table}</table></div>')
    for caption, figure in part.figures.items():
        text = escape(caption)
        image = f'<img alt="{text}" src="{_inline(figure)}">'
        pieces.append(f"<figure>{image}<figcaption>{text}</figcaption></figure>")
    for name, text in part.texts.items():
        pieces.append(f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>")
    return "\n".join(pieces)


def _line(tag: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _inline(figure: Figure | Path) -> str:
    if isinstance(figure, Path):
        kind = "png"
        content = figure.read_bytes()
        if not content.startswith(b"\x89PNG\r\n\x1a\n"):
            raise InputError(f"{figure} is not a PNG file; remove it.")
    else:
        file = io.BytesIO()
        figure.savefig(file, format="svg")
        kind = "svg+xml"
        content = file.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; font: 16px/1.5 sans-serif; }
h2 { margin-top: 2rem; border-top: 1px solid #8888; padding-top: .6rem; font-size: 1.2rem; }
img { max-width: 100%; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #8888; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
"""
