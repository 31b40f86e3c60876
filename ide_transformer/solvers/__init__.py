"""Time-stepping schemes, as diffrax solvers."""

from .evaluations import EvaluationCount, Evaluations, count_evaluations, evaluation_count
from .implicit import find_root
from .prepare import prepare_solver
from .public import *
from .reversible import Couplings, couplings_of
from .runge_kutta import unroll_stages
from .scheme import (
    Terms,
    check_plan,
    check_start,
    first_failure,
    inconsistent_scheme,
    learned_numbers,
    restarts_at_jumps,
    schemes_of,
    with_key,
)
from .splitting import splitting_of, with_sub_solver
from .wrapper import AbstractWrapper, scheme_name, start_inside
