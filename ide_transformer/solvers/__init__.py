"""Time-stepping schemes: diffrax solvers, a file for each family."""

from .connections import AbstractConnected
from .evaluations import EvaluationCount, Evaluations, count_evaluations, evaluations_made
from .implicit import matrix_free
from .momentum import learned
from .multistep import draws, with_key
from .public import *
from .reversible import Couplings, couplings_of
from .runge_kutta import ExplicitRungeKutta, unrolled
from .scheme import first_failure, inconsistent, restarts_at_jumps
from .splitting import splitting_of, with_sub_solver
from .wrapper import keeps_constraint, start_inside
