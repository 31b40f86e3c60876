"""Operator splitting: one operator after the other, or all in parallel."""

from .composition import Composition as Composition, Suzuki4 as Suzuki4, Yoshida4 as Yoshida4
from .exact_flow import ExactFlow as ExactFlow
from .lie_strang import LieStrang as LieStrang
from .lie_trotter import LieTrotter as LieTrotter
from .paper_splitting import (
    ConsistentPaperSplitting as ConsistentPaperSplitting,
    PaperSplitting as PaperSplitting,
)
from .parallel_splitting import ParallelSplitting as ParallelSplitting
from .splitting import (
    AbstractSequentialSplitting as AbstractSequentialSplitting,
    AbstractSplitting as AbstractSplitting,
)
from .strang import Strang as Strang
