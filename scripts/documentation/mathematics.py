r"""Formulas of pages, `$…$` and blocks fenced as `math`, typeset as drawings inside the page,
which then needs no script, no font and no other host. A forge typesets them by itself."""

import importlib
import re
import xml.etree.ElementTree as ElementTree
from html import escape
from typing import Any

from ide_transformer import InputError


# Code is left as it is.
_FORMULA = re.compile(
    r"^```math\n(?P<block>.+?)^```$|^(?P<fence>```+).*?^(?P=fence)$|(?P<ticks>`+).+?(?P=ticks)"
    r"|(?<![\\$\w])\$(?P<inline>[^$\s](?:[^$]*[^$\s\\])?)\$(?!\w)",
    flags=re.M | re.S,
)
_SIZE = 40


def typeset(text: str) -> str:
    """A page whose formulas are drawings, in the colour of its text."""
    return _FORMULA.sub(_replaced, text)


def _replaced(found: re.Match[str]) -> str:
    if found["inline"]:
        return drawing(found["inline"], inline=True)
    if found["block"]:
        return f'<div class="formula">{drawing(found["block"])}</div>'
    return found[0]


def drawing(formula: str, *, inline: bool = False) -> str:
    """A formula as SVG that stands on the line of its text, with TeX as its description."""
    # Needed where a site is built, and not where its tables are written.
    ziamath: Any = importlib.import_module("ziamath")

    # Outlines alone, without links between glyphs, which would be links of the page.
    ziamath.config.svg2 = False
    ziamath.config.precision = 1
    source = " ".join(formula.split())
    try:
        svg = ziamath.Latex(source, _SIZE, color="currentColor", inline=inline).svgxml()
    except Exception as error:  # of many kinds
        raise InputError(f"${source}$ cannot be typeset: {error}") from error
    _, top, width, height = map(float, svg.attrib["viewBox"].split())
    # Backslashes and bars mean something else to Markdown.
    label = escape(source).replace("\\", "&#92;").replace("|", "&#124;")
    style = f"width:{width / _SIZE:.2f}em;vertical-align:{-(top + height) / _SIZE:.2f}em"
    return (
        f'<svg class="formula" role="img" aria-label="{label}" '
        f'viewBox="{svg.attrib["viewBox"]}" style="{style}">'
        f"{''.join(ElementTree.tostring(part, encoding='unicode') for part in svg)}</svg>"
    )
