"""`solve`, the one entry point; fixed steps, adaptive steps, gradient modes."""

from .adaptive import TokenNorm as TokenNorm
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
from .token_march import (
    TokenCache as TokenCache,
    TokenMarch as TokenMarch,
    why_not_by_token as why_not_by_token,
)
