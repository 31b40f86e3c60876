"""Models: inputs, an equation and a read-out."""

from .causality import check_causal
from .compiled import compiled_outputs
from .model import is_built_as, kinds_of
from .public import *
from .read_outs import MaskedTokenHead, mean_vectors
from .units import STATISTICS, Statistics
