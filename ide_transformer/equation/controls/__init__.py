"""Controls: the weights as functions of depth."""

from .chebyshev import Chebyshev as Chebyshev
from .control import AbstractControl as AbstractControl
from .expansion import AbstractExpansion as AbstractExpansion
from .fourier import Fourier as Fourier
from .hypernetwork import Hypernetwork as Hypernetwork
from .low_precision import low_precision as low_precision
from .piecewise_constant import PiecewiseConstant as PiecewiseConstant
from .piecewise_linear import PiecewiseLinear as PiecewiseLinear
from .sampled import Sampled as Sampled
from .sourced import Sourced as Sourced, with_source as with_source
from .tabulated import Tabulated as Tabulated
from .tied import Tied as Tied
