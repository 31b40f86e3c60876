"""Given weights seen as a dynamical system: defects, coarser and finer meshes, errors."""

from .budget import (
    ErrorBudget as ErrorBudget,
    ErrorPart as ErrorPart,
    FunctionSolve as FunctionSolve,
    error_budget as error_budget,
    gain as gain,
    refinements as refinements,
)
from .controlled import (
    Costates as Costates,
    Steering as Steering,
    costates as costates,
    log_odds as log_odds,
    steer as steer,
)
from .costs import (
    AbstractCost as AbstractCost,
    ConstraintViolation as ConstraintViolation,
    Contraction as Contraction,
    ControlEnergy as ControlEnergy,
    Path as Path,
    Smoothness as Smoothness,
    Transport as Transport,
)
from .layers import (
    MOVES as MOVES,
    Layered as Layered,
    drops as drops,
    extensions as extensions,
    keep_layers as keep_layers,
    mergers as mergers,
    native_layers as native_layers,
    selections as selections,
)
from .march import scan_intervals as scan_intervals
from .meshes import (
    Coarsening as Coarsening,
    Quantity as Quantity,
    Target as Target,
    coarsen as coarsen,
    coarsenings as coarsenings,
    extrapolated as extrapolated,
    fit_rates as fit_rates,
    native_target as native_target,
    refine as refine,
    richardson as richardson,
)
from .pontryagin import (
    Approximations as Approximations,
    successive_approximations as successive_approximations,
)
from .scales import (
    CoarseHeads as CoarseHeads,
    Distances as Distances,
    coarse_heads as coarse_heads,
    distances as distances,
    heads_of as heads_of,
    kernel as kernel,
    waves as waves,
    with_coarse_heads as with_coarse_heads,
)
from .spectra import (
    Clustering as Clustering,
    clustering as clustering,
    log_norms as log_norms,
    stretching as stretching,
)
from .step_defects import (
    Defects as Defects,
    defects as defects,
    equation_defects as equation_defects,
    removal_damage as removal_damage,
    removal_estimate as removal_estimate,
)
