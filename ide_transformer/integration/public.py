"""Its public names, which `ide_transformer` has too."""

from .exits import (
    AbstractExit as AbstractExit,
    EstimatedExit as EstimatedExit,
    Progress as Progress,
    divergence as divergence,
    relative_difference as relative_difference,
)
from .gradients import (
    AbstractGradient as AbstractGradient,
    Direct as Direct,
    Recompute as Recompute,
    Recursive as Recursive,
)
from .output import Solution as Solution
from .reversible import Reversible as Reversible, rebuilding_error as rebuilding_error
from .solve import Discretization as Discretization, solve as solve
