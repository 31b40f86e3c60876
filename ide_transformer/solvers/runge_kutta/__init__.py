"""Runge–Kutta methods that diffrax lacks."""

from .explicit_runge_kutta import ExplicitRungeKutta as ExplicitRungeKutta, unrolled as unrolled
from .gated_rk2 import GatedRK2 as GatedRK2
from .rk4 import RK4 as RK4
