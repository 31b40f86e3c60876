"""The study of resolutions: losses and errors at other tokens, features and steps, and error
budgets tried on random equations."""

from .measure import (
    problem_of as problem_of,
    refinement_errors as refinement_errors,
    tried_budget as tried_budget,
)
from .random_problem import random_problem as random_problem
