"""`solve`, the one entry point; fixed steps, adaptive steps, gradient modes."""

from .adaptive import TokenNorm as TokenNorm
from .discretization import Discretization as Discretization
from .gradients import (
    AbstractGradient as AbstractGradient,
    Direct as Direct,
    Recompute as Recompute,
    Recursive as Recursive,
    Reversible as Reversible,
    rebuilding_error as rebuilding_error,
)
from .solution import Solution as Solution
from .solve import solve as solve
from .token_march import (
    TokenCache as TokenCache,
    TokenMarch as TokenMarch,
    why_not_by_token as why_not_by_token,
)
