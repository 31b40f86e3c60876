from .gradient import (
    AbstractGradient as AbstractGradient,
    Checkpoint as Checkpoint,
    Direct as Direct,
)
from .recursive import Recursive as Recursive
from .reversible import Reversible as Reversible
from .solution import Solution as Solution
from .solve import solve as solve
