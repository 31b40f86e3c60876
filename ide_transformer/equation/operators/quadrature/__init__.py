"""The token integral of attention as a quadrature."""

from .integrate import integrate as integrate, split_heads as split_heads
from .token_mean import RESIDUALS as RESIDUALS
