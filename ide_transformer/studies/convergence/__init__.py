"""Orders of convergence of every scheme."""

from .orders import measure_order as measure_order, plot_orders as plot_orders
from .registry import (
    CONSTRAINTS as CONSTRAINTS,
    CONTROLS as CONTROLS,
    applies as applies,
    find_scheme as find_scheme,
    schemes as schemes,
)
