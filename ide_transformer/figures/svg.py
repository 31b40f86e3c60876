"""Figures as SVG inside of a page, in the colours of its theme."""

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

from .plots import COLORS, of_text


# The palette on a dark ground: the same hues, lighter; black becomes the colour of the text.
_ON_DARK = (
    *("#56A8E8", "#FF8F4D", "#2FCF9F", "#E5A0CB"),
    *("#F5BE45", "#9ADCFF", "#E6E6E6", "#B5B5B5"),
)


def inline_svg(figure: Figure, name: str) -> str:
    """A figure as an element `<svg>` without a size of its own. Its colours are variables, see
    `palette`, its texts are texts, and it needs no other file.

    **Arguments:**

    - `name`: says what is drawn to those who do not see it; it also makes the identifiers in
      the figure, so a page should not have two of the same name.
    """
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
