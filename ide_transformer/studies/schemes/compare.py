from pathlib import Path

from ...reporting.report import Report
from .config import CompareConfig, TrainingComparison
from .solving import compare_solving
from .training import compare_training


def compare(config: CompareConfig, runs: Path) -> Report:
    """Makes the comparison of either kind."""
    if isinstance(config, TrainingComparison):
        return compare_training(config, runs)
    return compare_solving(config, runs)
