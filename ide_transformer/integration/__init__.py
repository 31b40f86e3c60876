"""`solve`, the one entry point; fixed steps, adaptive steps, gradient modes."""

from .adaptive import TokenNorm
from .public import *
from .token_march import TokenCache, TokenMarch, why_not_by_token
