"""Tables, figures and reports; it knows nothing of the rest of the package."""

from .byte_progress import ByteProgress as ByteProgress
from .fields import plot_fields as plot_fields
from .page import Part as Part, Picture as Picture, write_page as write_page
from .plots import (
    COLORS as COLORS,
    Curve as Curve,
    draw_panels as draw_panels,
    plot_curves as plot_curves,
    plot_intervals as plot_intervals,
    plot_panels as plot_panels,
)
from .tables import (
    Report as Report,
    show_table as show_table,
    write_json as write_json,
    write_report as write_report,
)
from .terminal import Terminal as Terminal
