"""One trained model solved with fewer and with more field evaluations."""

from .budgets import compare_budgets as compare_budgets
from .measure import (
    CoarseningStudy as CoarseningStudy,
    Extent as Extent,
    measure_coarsening as measure_coarsening,
)
from .plot import plot_methods as plot_methods
from .problem import Problem as Problem
from .ranking import (
    Ranking as Ranking,
    layer_columns as layer_columns,
    rank_layers as rank_layers,
)
from .rules import (
    at_random as at_random,
    evenly as evenly,
    first_layers as first_layers,
    most_needed as most_needed,
    most_turning as most_turning,
)
from .speeches import halves_of_speeches as halves_of_speeches
from .study import study_coarsening as study_coarsening
