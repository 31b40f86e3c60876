"""Operator splitting: one operator after, or beside, the other."""

from .composition import Composition as Composition, suzuki4 as suzuki4, yoshida4 as yoshida4
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
