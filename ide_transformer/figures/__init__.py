"""Figures, and pages of them. Import it where one is drawn, since matplotlib takes a while."""

from .page import Part, write_page
from .plots import (
    Curve,
    draw_panels,
    literal,
    plot_curves,
    plot_fields,
    plot_intervals,
    plot_panels,
    save_figure,
)
