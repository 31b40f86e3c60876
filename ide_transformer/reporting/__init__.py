"""Tables, figures, reports and timing; it knows nothing of the rest of the package."""

from .plots import (
    Curve as Curve,
    plot_bars as plot_bars,
    plot_curves as plot_curves,
    plot_panels as plot_panels,
)
from .programs import (
    Measurement as Measurement,
    compile_seconds as compile_seconds,
    measure as measure,
    temporary_mebibytes as temporary_mebibytes,
)
from .report import Report as Report, write_report as write_report
from .tables import show_table as show_table, write_json as write_json
from .timing import (
    Timing as Timing,
    alternate as alternate,
    check_rounds as check_rounds,
    middle_half as middle_half,
    timed_steps as timed_steps,
)
