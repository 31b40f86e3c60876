"""Its public names."""

from .budget import ErrorBudget, ErrorPart, FunctionSolve, error_budget, gain, refinements
from .controlled import Costates, Steering, costates, log_odds, steer
from .costs import (
    AbstractCost,
    ConstraintViolation,
    Contraction,
    ControlEnergy,
    Path,
    Smoothness,
    Transport,
)
from .layers import (
    MOVES,
    Layered,
    drops,
    extensions,
    keep_layers,
    mergers,
    native_layers,
    selections,
)
from .march import scan_intervals
from .meshes import (
    Coarsening,
    Quantity,
    Target,
    coarsen,
    coarsenings,
    extrapolated,
    fit_rates,
    native_target,
    refine,
    richardson,
)
from .pontryagin import Approximations, successive_approximations
from .scales import (
    CoarseHeads,
    Distances,
    coarse_heads,
    distances,
    heads_of,
    kernel,
    waves,
    with_coarse_heads,
)
from .spectra import Clustering, clustering, log_norms, stretching
from .step_defects import Defects, defects, equation_defects, removal_damage, removal_estimate
