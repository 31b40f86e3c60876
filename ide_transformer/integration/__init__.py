from .by_token import why_not_by_token as why_not_by_token
from .gradient import (
    AbstractGradient as AbstractGradient,
    Checkpoint as Checkpoint,
    Direct as Direct,
)
from .march_tokens import (
    Memory as Memory,
    TokenMarch as TokenMarch,
)
from .rebuilding import rebuilding_error as rebuilding_error
from .recursive import Recursive as Recursive
from .reversible import Reversible as Reversible
from .solution import Solution as Solution
from .solve import solve as solve
