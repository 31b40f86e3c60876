"""Public names of integration."""

from .exits import AbstractExit, EstimatedExit, Progress, divergence, relative_difference
from .gradients import AbstractGradient, Direct, Recompute, Recursive, Truncated
from .mesh import Mesh
from .output import Solution
from .reversible import Reversible, rebuilding_error
from .solve import solve
