"""A model seen as a dynamical system: the defects of its steps."""

from .defects import (
    Defects as Defects,
    equation_defects as equation_defects,
    scan_intervals as scan_intervals,
)
