"""Figures, films and HTML pages. Import it in functions, since matplotlib loads slowly."""

from .page import Part, write_page
from .plots import (
    Curve,
    draw_panels,
    plot_curves,
    plot_fields,
    plot_intervals,
    plot_panels,
    save_figure,
)
