"""`solve`, the one entry point; fixed steps, adaptive steps, gradient modes."""

from .adaptive import TokenNorm
from .exits import AbstractExit, EstimatedExit, Progress, divergence, relative_difference
from .gradients import AbstractGradient, Direct, Recompute, Recursive
from .output import Solution
from .reversible import Reversible, rebuilding_error
from .solve import Discretization, solve
from .token_march import TokenCache, TokenMarch, why_not_by_token
