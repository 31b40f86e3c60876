"""Gradient modes: what is kept on the way forward, what is computed again."""

from .gradient import (
    AbstractGradient as AbstractGradient,
    Direct as Direct,
    Recompute as Recompute,
)
from .rebuilding import rebuilding_error as rebuilding_error
from .recursive import Recursive as Recursive
from .reversible import Reversible as Reversible
