from .control import AbstractControl as AbstractControl
from .piecewise_constant import PiecewiseConstant as PiecewiseConstant
from .piecewise_linear import PiecewiseLinear as PiecewiseLinear
from .sampled import Sampled as Sampled
from .tied import Tied as Tied
