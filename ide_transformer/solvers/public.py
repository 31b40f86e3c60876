"""Its public names."""

from .bidirectional import Bidirectional
from .blocks import ConsistentPaperSplitting, PaperSplitting, Residual, Velocity
from .connections import (
    AttentionResidual,
    DoublyStochasticConnections,
    HyperConnections,
    LearnedMultistep,
)
from .gated import GatedRK2
from .implicit import (
    AbstractImplicitScheme,
    ImplicitEuler,
    ImplicitMidpoint,
    MatrixFree,
    SteadyState,
)
from .momentum import AbstractCoefficient, AbstractMomentum, Nesterov, PresymplecticEuler
from .multistep import ETDAB2, AdamsBashforth, ExponentialEuler
from .reversible import AbstractCoupling, AbstractReversible, Leapfrog, Shear
from .runge_kutta import RK4
from .scheme import (
    AbstractOneStep,
    AbstractScheme,
    InitialVelocity,
    SolvePlan,
    Step,
    StepField,
    single_step,
)
from .splitting import (
    AbstractSequentialSplitting,
    AbstractSplitting,
    Composition,
    ExactFlow,
    LieStrang,
    LieTrotter,
    ParallelSplitting,
    Strang,
    Suzuki4,
    Yoshida4,
)
from .wrapper import AlgebraicallyReversible, Projected, projected
