"""Figures as PNG files, and a page of them. To be imported where one is drawn, not before:
matplotlib takes a while."""

from .page import Part, write_page
from .plots import (
    COLORS,
    Curve,
    draw_panels,
    literal,
    plot_curves,
    plot_fields,
    plot_intervals,
    plot_panels,
    save_figure,
)
