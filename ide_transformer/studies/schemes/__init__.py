"""Schemes compared, by training with each or by solving one set of weights with each."""

from .load import load_comparison as load_comparison
from .trials import about_sources as about_sources
