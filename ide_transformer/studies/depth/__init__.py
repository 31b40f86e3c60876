"""One trained model solved with fewer and with more field evaluations."""

from .budget import Budget as Budget
from .measure import measure_coarsening as measure_coarsening
from .problem import Problem as Problem
from .study import study_coarsening as study_coarsening
