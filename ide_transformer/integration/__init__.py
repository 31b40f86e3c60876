"""Solves equations: fixed and adaptive steps, gradient modes, exits."""

from .adaptive import TokenNorm
from .public import *
from .token_march import TokenCache, TokenMarch, why_not_by_token
