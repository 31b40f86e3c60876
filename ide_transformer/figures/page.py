"""Pages of HTML that need nothing but themselves, and figures inside them as SVG."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure

from ..errors import whole_file
from ..reporting.tables import Row, table_cells
from .plots import COLORS, of_text


# The palette on a dark ground: the same hues, lighter; black becomes the colour of the text.
_ON_DARK = (
    *("#56A8E8", "#FF8F4D", "#2FCF9F", "#E5A0CB"),
    *("#F5BE45", "#9ADCFF", "#E6E6E6", "#B5B5B5"),
)


class Picture(NamedTuple):
    """A figure and what it shows, in a sentence."""

    figure: Figure
    caption: str


class Part(NamedTuple):
    """A part of a page: pictures, a table of `rows` and preformatted texts by their headings,
    each of which may be missing. No two parts of a page have the same title."""

    title: str
    about: str = ""
    pictures: Sequence[Picture] = ()
    rows: Sequence[Row] = ()
    texts: Mapping[str, str] = {}


def write_page(path: Path, title: str, about: str, parts: Sequence[Part]) -> None:
    """Writes a page, all of it or nothing, with styles and figures inside. It is light or dark
    as its reader's system is."""
    body = "\n".join(map(_part, parts))
    contents = " ".join(f'<a href="#{_anchor(x)}">{escape(x.title)}</a>' for x in parts)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p>\n<nav>{contents}</nav>"
        f"</header>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
    with whole_file(path) as written:
        written.write_text(page, encoding="utf-8")


def _part(part: Part) -> str:
    pictures = "\n".join(
        f"<figure>{inline_svg(picture.figure, f'{part.title} {number}')}"
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        for number, picture in enumerate(part.pictures, 1)
    )
    texts = "\n".join(
        f"<h3>{escape(name)}</h3><pre>{escape(text)}</pre>" for name, text in part.texts.items()
    )
    about = f"<p>{escape(part.about)}</p>" if part.about else ""
    table = _table(part.rows) if part.rows else ""
    return (
        f'<section id="{_anchor(part)}"><h2>{escape(part.title)}</h2>\n{about}{table}\n'
        f'<div class="figures">{pictures}</div>\n{texts}</section>'
    )


def _anchor(part: Part) -> str:
    return part.title.lower().replace(" ", "-")


def _table(rows: Sequence[Row]) -> str:
    headings, lines = table_cells(rows)
    # Numbers of a column are compared, so they stand below each other.
    aligned = [
        ' class="number"' * all(map(_number, column)) for column in zip(*lines, strict=True)
    ]
    head = "".join(f"<th{x}>{escape(y)}</th>" for x, y in zip(aligned, headings, strict=True))
    body = "\n".join(
        f"<tr>{''.join(f'<td{x}>{escape(y)}</td>' for x, y in zip(aligned, line, strict=True))}"
        "</tr>"
        for line in lines
    )
    table = f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _number(cell: str) -> bool:
    return cell == "–" or cell.removeprefix("-")[:1].isdecimal()


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an element `<svg>` whose colours are variables, see `palette`. Its name says
    what is drawn to those who do not see it, and makes the identifiers in the figure: a page
    has no two of the same name."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # Without a date the same figure is the same text.
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    drawing = file.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.S)
    for number, color in enumerate(COLORS):
        for variable, found in ((f"--c{number}", color), (f"--t{number}", of_text(color))):
            # Black is the colour of axes and texts too.
            shown = "currentColor" if found == "#000000" else f"var({variable})"
            drawing = re.sub(found, shown, drawing, flags=re.I)
    # The first element alone has a size; a viewBox is left.
    head, end, rest = drawing.partition(">")
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    width = re.search(r'viewBox="0 0 ([\d.]+)', head)
    assert width is not None
    size = f' style="max-width: {float(width[1]) * 4 / 3:.0f}px"'
    return f'{head} role="img" aria-label="{escape(name)}"{size}{end}{rest}'


def palette(*, dark: bool) -> str:
    """The colours of curves (`--c0`, …) and of their labels (`--t0`, …), as CSS."""
    colors = _ON_DARK if dark else COLORS
    texts = colors if dark else map(of_text, colors)
    pairs = zip(colors, texts, strict=True)
    return " ".join(
        f"--c{n}: {color}; --t{n}: {text};" for n, (color, text) in enumerate(pairs)
    )


_STYLE = f"""
:root {{ color-scheme: light dark; --ground: #fff; --ink: #1c1c1c; --faint: #666;
  --line: #ddd; --box: #f6f6f6; {palette(dark=False)} }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #16181c; --ink: #e6e6e6;
  --faint: #a0a0a0; --line: #3a3d42; --box: #202329; {palette(dark=True)} }} }}
body {{ margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }}
h1 {{ margin: 0; font-size: 1.6rem; }}
h2 {{ margin: 2.2rem 0 .4rem; padding-top: .6rem; border-top: 1px solid var(--line);
  font-size: 1.2rem; }}
h3 {{ margin: 1rem 0 .3rem; font-size: 1rem; }}
p, figcaption {{ margin: .3rem 0; color: var(--faint); font-size: .9rem; max-width: 50rem; }}
nav {{ display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .9rem; }}
a {{ color: var(--t0); }}
.figures {{ display: grid; gap: 0 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }}
figure {{ margin: 1rem 0; min-width: 0; }}
svg {{ display: block; width: 100%; height: auto; fill: currentColor; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: .6rem 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }}
th {{ color: var(--faint); font-weight: 600; }}
.number {{ text-align: right; }}
pre {{ margin: 0; padding: .7rem; background: var(--box); border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }}
"""
