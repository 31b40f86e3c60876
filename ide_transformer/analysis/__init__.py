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
from .measure import Measurement as Measurement, measure as measure
from .plots import plot_curves as plot_curves
