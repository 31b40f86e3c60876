"""Figures as PNG files, and a page of them. To be imported where one is drawn, not before:
matplotlib takes a while."""

from .page import Part as Part, write_page as write_page
from .plots import (
    COLORS as COLORS,
    Curve as Curve,
    draw_panels as draw_panels,
    literal as literal,
    plot_curves as plot_curves,
    plot_fields as plot_fields,
    plot_intervals as plot_intervals,
    plot_panels as plot_panels,
    save_figure as save_figure,
)
