from .plots import plot_curves as plot_curves
