"""`solve`, with fixed or adaptive steps and gradient modes."""

from .adaptive import TokenNorm
from .public import *
from .token_march import TokenCache, TokenMarch, why_not_by_token
