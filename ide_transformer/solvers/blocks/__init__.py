"""Schemes for fields that are made of whole blocks."""

from .on_blocks import BlockField as BlockField, ResidualField as ResidualField
from .residual import Residual as Residual
from .velocity import Velocity as Velocity
