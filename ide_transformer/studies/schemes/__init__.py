"""Schemes compared, by training with each or by solving one set of weights with each."""

from .comparison import AbstractComparison as AbstractComparison
from .load import load_comparison as load_comparison
from .solving import SolvingComparison as SolvingComparison
from .training import TrainingComparison as TrainingComparison
from .trials import about_sources as about_sources
