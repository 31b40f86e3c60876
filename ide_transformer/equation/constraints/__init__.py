"""Constraint sets of the state, and the maps of checkpoints."""

from .constraint import (
    AbstractConstraint as AbstractConstraint,
    AbstractRescaling as AbstractRescaling,
)
from .free import Free as Free
from .layer_norm import LayerNorm as LayerNorm
from .nonnegative import Nonnegative as Nonnegative
from .rms_norm import RMSNorm as RMSNorm
from .rms_sphere import RMSSphere as RMSSphere
from .sphere import Sphere as Sphere
