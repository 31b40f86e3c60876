"""Public names of integration."""

from .exits import AbstractExit, EstimatedExit, Progress, divergence, relative_difference
from .gradients import AbstractGradient, Direct, Recompute, Recursive
from .mesh import Mesh
from .output import Solution
from .reversible import Reversible
from .solve import solve
