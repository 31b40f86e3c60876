from .against_torch import against_torch as against_torch
from .march import SCHEMES as SCHEMES, march as march
from .problem import Shape as Shape
from .report import report as report
from .settings import SETTINGS as SETTINGS, Setting as Setting
