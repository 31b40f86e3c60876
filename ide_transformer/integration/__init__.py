from .gradient import (
    AbstractGradient as AbstractGradient,
    Checkpoint as Checkpoint,
    Direct as Direct,
)
from .solution import Solution as Solution
from .solve import solve as solve
