"""Implicit schemes, solved by Newton–Krylov."""

from .implicit_euler import ImplicitEuler as ImplicitEuler
from .implicit_midpoint import ImplicitMidpoint as ImplicitMidpoint
from .implicit_scheme import AbstractImplicitScheme as AbstractImplicitScheme
from .matrix_free import MatrixFree as MatrixFree, matrix_free as matrix_free
from .steady_state import SteadyState as SteadyState
