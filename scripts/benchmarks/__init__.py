from .against_torch import against_torch as against_torch
from .attention import attention as attention
from .compiling import compiling as compiling
from .decode import decode as decode
from .gradient import gradient as gradient
from .march import SCHEMES as SCHEMES, march as march
from .modes import NORMALIZATIONS as NORMALIZATIONS
from .problem import Shape as Shape
from .report import report as report
from .settings import SETTINGS as SETTINGS, Setting as Setting
