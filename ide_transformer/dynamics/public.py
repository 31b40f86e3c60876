"""Public names of the dynamics."""

from .budget import ErrorBudget, ErrorPart, FunctionSolve, error_budget, refinements
from .costs import AbstractCost, Path, Transport
from .layers import (
    in_layers,
    keep_layers,
    rates,
    stacked_intervals,
    stacked_operators,
    take_layers,
    whole_layers,
)
from .march import March, relative_error, scan_intervals, square
