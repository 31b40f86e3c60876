"""Runs: configuration, training loop, checkpoints, metrics."""

from .public import *
