"""Gradient modes: the values kept on the way forward; the others are computed again."""

from .direct import Direct as Direct
from .gradient import AbstractGradient as AbstractGradient
from .rebuilding import rebuilding_error as rebuilding_error
from .recompute import Recompute as Recompute
from .recursive import Recursive as Recursive
from .reversible import Reversible as Reversible
