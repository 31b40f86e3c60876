from .measure import Measurement as Measurement, measure as measure
from .plots import plot_curves as plot_curves
