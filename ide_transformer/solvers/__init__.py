"""Time-stepping schemes: diffrax solvers, a file for each family."""

from .blocks import ConsistentPaperSplitting, PaperSplitting, Residual, Velocity
from .connections import (
    AbstractConnected,
    AttentionResidual,
    DoublyStochasticConnections,
    HyperConnections,
    LearnedMultistep,
)
from .evaluations import EvaluationCount, Evaluations, count_evaluations, evaluations_made
from .implicit import (
    AbstractImplicitScheme,
    ImplicitEuler,
    ImplicitMidpoint,
    MatrixFree,
    SteadyState,
    matrix_free,
)
from .momentum import (
    AbstractCoefficient,
    AbstractMomentum,
    HeavyBall,
    InitialVelocity,
    Nesterov,
    PresymplecticEuler,
    learned,
)
from .multistep import ETDAB2, AdamsBashforth, Bidirectional, ExponentialEuler, draws, with_key
from .reversible import (
    AbstractCoupling,
    AbstractReversible,
    Couplings,
    Leapfrog,
    Shear,
    couplings_of,
)
from .runge_kutta import RK4, ExplicitRungeKutta, GatedRK2, unrolled
from .scheme import (
    AbstractFieldScheme,
    AbstractOneStep,
    AbstractScheme,
    Step,
    StepField,
    first_failure,
    inconsistent,
    restarts_at_jumps,
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
    splitting_of,
    with_sub_solver,
)
from .wrapper import (
    AlgebraicallyReversible,
    Projected,
    Tangential,
    keeps_constraint,
    projected,
    start_inside,
)
