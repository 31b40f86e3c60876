"""The token integral of attention as a quadrature."""

from .integrate import integrate as integrate
from .token_mean import RESIDUALS as RESIDUALS, Domains as Domains
