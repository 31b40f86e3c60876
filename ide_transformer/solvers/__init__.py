from .evaluations import (
    Evaluations as Evaluations,
    count_evaluations as count_evaluations,
)
from .lie_trotter import LieTrotter as LieTrotter
from .projected import Projected as Projected
from .rk4 import RK4 as RK4
from .splitting import AbstractSplitting as AbstractSplitting
from .strang import Strang as Strang
