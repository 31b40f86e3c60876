"""Runs: configuration, training loop, checkpoints, metrics."""

from .. import public as _public  # for constructors that check their arguments
from .public import *
