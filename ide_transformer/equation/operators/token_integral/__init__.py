from .integrate import integrate as integrate, split_heads as split_heads
from .quadrature import RESIDUALS as RESIDUALS
