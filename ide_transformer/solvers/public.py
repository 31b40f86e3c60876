"""Public names of the solvers."""

from .blocks import ConsistentPaperSplitting, PaperSplitting, Residual, Velocity
from .implicit import AbstractImplicitScheme, ImplicitEuler, ImplicitMidpoint, MatrixFree
from .multistep import ETDAB2, ETDRK4, AdamsBashforth, ExponentialEuler
from .reversible import AbstractCoupling, AbstractReversible, Leapfrog, Shear
from .runge_kutta import RK4
from .scheme import AbstractOneStep, AbstractScheme, SolvePlan, Step, StepField, single_step
from .splitting import (
    AbstractSequentialSplitting,
    AbstractSplitting,
    ExactFlow,
    LieStrang,
    LieTrotter,
    ParallelSplitting,
    Strang,
    Suzuki4,
    Yoshida4,
)
from .wrapper import AlgebraicallyReversible, Projected, projected
