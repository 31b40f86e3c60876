"""Given weights seen as a dynamical system: defects, coarser and finer meshes, errors."""

from .budget import (
    ErrorBudget as ErrorBudget,
    ErrorPart as ErrorPart,
    error_budget as error_budget,
    gain as gain,
    refinements as refinements,
)
from .coarsen import (
    MOVES as MOVES,
    Coarsening as Coarsening,
    coarsen as coarsen,
    coarsenings as coarsenings,
)
from .damage import (
    defects as defects,
    removal_damage as removal_damage,
    removal_estimate as removal_estimate,
)
from .fit import fit_rates as fit_rates
from .function_solve import FunctionSolve as FunctionSolve
from .layers import keep_layers as keep_layers
from .moves import (
    Layered as Layered,
    drops as drops,
    extensions as extensions,
    mergers as mergers,
    native_layers as native_layers,
    selections as selections,
)
from .refine import extrapolated as extrapolated, refine as refine, richardson as richardson
from .step_defects import (
    Defects as Defects,
    equation_defects as equation_defects,
    scan_intervals as scan_intervals,
)
from .target import Quantity as Quantity, Target as Target, native_target as native_target
