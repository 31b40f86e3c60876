"""Adaptive steps, none across the boundary of an interval."""

from .controller import KeepsProposal as KeepsProposal
from .token_norm import TokenNorm as TokenNorm, without_padding as without_padding
