"""`solve`, the one entry point; fixed steps, adaptive steps, gradient modes."""

from .adaptive import TokenNorm as TokenNorm
from .exits.estimated import (
    EstimatedExit as EstimatedExit,
    divergence as divergence,
    relative_difference as relative_difference,
)
from .exits.exit import AbstractExit as AbstractExit, Progress as Progress
from .gradients.modes import (
    AbstractGradient as AbstractGradient,
    Direct as Direct,
    Recompute as Recompute,
    Recursive as Recursive,
)
from .gradients.reversible import Reversible as Reversible, rebuilding_error as rebuilding_error
from .solution import Solution as Solution
from .solve import Discretization as Discretization, solve as solve
from .token_march.by_token import why_not_by_token as why_not_by_token
from .token_march.token_march import TokenCache as TokenCache, TokenMarch as TokenMarch
