"""Gradient modes: what is kept on the way forward, what is computed again."""

from .gradient import (
    AbstractGradient as AbstractGradient,
    Checkpoint as Checkpoint,
    Direct as Direct,
)
from .rebuilding import rebuilding_error as rebuilding_error
from .recursive import Recursive as Recursive
from .reversible import Reversible as Reversible
