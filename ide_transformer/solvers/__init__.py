"""Time-stepping schemes, as diffrax solvers."""

from .evaluations import EvaluationCount, Evaluations, count_evaluations, evaluations_made
from .implicit import find_root
from .prepare import prepared
from .public import *
from .reversible import Couplings, couplings_of
from .runge_kutta import unrolled
from .scheme import (
    Terms,
    check_plan,
    check_start,
    first_failure,
    inconsistent,
    learned,
    restarts_at_jumps,
    schemes_of,
    with_key,
)
from .splitting import splitting_of, with_sub_solver
from .wrapper import AbstractWrapper, given_name, start_inside
