from .convergence import (
    CONSTRAINTS as CONSTRAINTS,
    CONTROLS as CONTROLS,
    Row as Row,
    applies as applies,
    measure_order as measure_order,
    plot_orders as plot_orders,
    schemes as schemes,
)
from .defects import Defects as Defects, equation_defects as equation_defects
from .intervals import scan_intervals as scan_intervals, single_step as single_step
from .measure import (
    Measurement as Measurement,
    Timing as Timing,
    alternate as alternate,
    compile_seconds as compile_seconds,
    measure as measure,
    middle_half as middle_half,
    temporary_mebibytes as temporary_mebibytes,
    timed_steps as timed_steps,
)
from .plots import plot_bars as plot_bars, plot_curves as plot_curves
from .tables import as_text as as_text, show_table as show_table
