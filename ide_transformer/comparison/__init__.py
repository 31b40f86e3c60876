from .compare import compare as compare
from .config import (
    CompareConfig as CompareConfig,
    load_compare_config as load_compare_config,
)
from .depth import compare_depth as compare_depth
from .report import Report as Report, show_report as show_report
from .solving import compare_solving as compare_solving
from .training import compare_training as compare_training
