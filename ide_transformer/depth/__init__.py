from .budgets import compare_budgets as compare_budgets
from .coarsen import (
    Coarsening as Coarsening,
    coarsen as coarsen,
    coarsenings as coarsenings,
)
from .damage import (
    defects as defects,
    removal_damage as removal_damage,
    removal_estimate as removal_estimate,
)
from .error import (
    Read as Read,
    Reference as Reference,
    evaluations_of as evaluations_of,
    reference as reference,
)
from .fit import fit_rates as fit_rates
from .layers import in_layers as in_layers, keep_layers as keep_layers
from .moves import (
    Mesh as Mesh,
    drops as drops,
    extensions as extensions,
    mergers as mergers,
    native_mesh as native_mesh,
    selections as selections,
)
from .plot import plot_depth as plot_depth
from .ranking import (
    Ranking as Ranking,
    layer_columns as layer_columns,
    rank_layers as rank_layers,
)
from .refine import refine as refine, richardson as richardson
from .report import DepthReport as DepthReport, depth_report as depth_report
from .rules import (
    at_random as at_random,
    evenly as evenly,
    first_layers as first_layers,
    most_needed as most_needed,
    most_turning as most_turning,
)
