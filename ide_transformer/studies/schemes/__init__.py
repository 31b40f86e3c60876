"""Schemes compared, by training with each or by solving one set of weights with each."""

from .compare import compare as compare
from .config import CompareConfig as CompareConfig, load_compare_config as load_compare_config
from .solving import compare_solving as compare_solving
from .training import compare_training as compare_training
