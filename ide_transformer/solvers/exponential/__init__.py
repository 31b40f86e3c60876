"""Schemes that treat a linear operator exactly."""

from .etdab2 import ETDAB2 as ETDAB2
from .exponential_euler import ExponentialEuler as ExponentialEuler
