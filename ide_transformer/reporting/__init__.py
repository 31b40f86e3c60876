"""Tables, figures, reports and timing; it knows nothing of the rest of the package."""

from .plots import plot_bars as plot_bars, plot_curves as plot_curves
from .report import Report as Report, show_report as show_report, write_report as write_report
from .tables import as_text as as_text, show_table as show_table
from .timing import (
    Measurement as Measurement,
    Timing as Timing,
    alternate as alternate,
    compile_seconds as compile_seconds,
    measure as measure,
    middle_half as middle_half,
    temporary_mebibytes as temporary_mebibytes,
    timed_steps as timed_steps,
)
