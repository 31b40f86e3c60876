"""The study of resolutions: errors against tokens, features and steps, and error budgets."""

from .random_problem import random_problem as random_problem
from .trial import Trial as Trial, tried_budget as tried_budget
