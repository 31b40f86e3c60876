"""Given weights on coarser and finer meshes in depth."""

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
from .target import Quantity as Quantity, Target as Target, native_target as native_target
