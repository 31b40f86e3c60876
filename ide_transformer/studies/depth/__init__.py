"""One trained model solved with fewer and with more field evaluations."""

from .budgets import compare_budgets as compare_budgets
from .plot import plot_depth as plot_depth
from .ranking import (
    Ranking as Ranking,
    layer_columns as layer_columns,
    rank_layers as rank_layers,
)
from .report import DepthReport as DepthReport, depth_report as depth_report
from .rules import (
    at_random as at_random,
    evenly as evenly,
    first_layers as first_layers,
    most_needed as most_needed,
    most_turning as most_turning,
)
from .study import compare_depth as compare_depth
