"""Orders of convergence of every scheme."""

from .orders import MeasuredOrder as MeasuredOrder, measure_order as measure_order
from .plot import plot_orders as plot_orders
from .problem import CONSTRAINTS as CONSTRAINTS, CONTROLS as CONTROLS
from .registry import applies as applies, schemes as schemes
