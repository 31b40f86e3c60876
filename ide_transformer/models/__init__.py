"""Models: inputs, an equation, a read-out."""

from .causality import check_causal
from .model import is_built_as, kinds_of
from .public import *
from .read_outs import MaskedTokenHead, mean_vectors
