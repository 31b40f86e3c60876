"""Schemes for fields that are made of whole blocks."""

from .residual import Residual as Residual
from .velocity import Velocity as Velocity
