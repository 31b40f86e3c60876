"""Time-stepping schemes: diffrax solvers, in folders by kind."""

from .base import (
    AbstractCoefficient as AbstractCoefficient,
    AbstractCoupling as AbstractCoupling,
    AbstractFieldScheme as AbstractFieldScheme,
    AbstractOneStep as AbstractOneStep,
    AbstractReversible as AbstractReversible,
    AbstractScheme as AbstractScheme,
    Couplings as Couplings,
    EvaluationCount as EvaluationCount,
    Evaluations as Evaluations,
    Positive as Positive,
    Projected as Projected,
    Retraction as Retraction,
    Shear as Shear,
    Step as Step,
    StepField as StepField,
    Swap as Swap,
    UnitInterval as UnitInterval,
    count_evaluations as count_evaluations,
    evaluations_made as evaluations_made,
    find_couplings as find_couplings,
    finite as finite,
    first_failure as first_failure,
    learned as learned,
    loses_companion as loses_companion,
    projected as projected,
    single_step as single_step,
    success as success,
)
from .blocks import Residual as Residual, Velocity as Velocity
from .exponential import ETDAB2 as ETDAB2, ExponentialEuler as ExponentialEuler
from .implicit import (
    AbstractImplicitScheme as AbstractImplicitScheme,
    ImplicitEuler as ImplicitEuler,
    ImplicitMidpoint as ImplicitMidpoint,
    MatrixFree as MatrixFree,
    SteadyState as SteadyState,
    matrix_free as matrix_free,
)
from .momentum import (
    AbstractMomentum as AbstractMomentum,
    HeavyBall as HeavyBall,
    Nesterov as Nesterov,
    PresymplecticEuler as PresymplecticEuler,
)
from .multistep import AdamsBashforth as AdamsBashforth, Leapfrog as Leapfrog
from .reversible import AlgebraicallyReversible as AlgebraicallyReversible
from .runge_kutta import (
    RK4 as RK4,
    ExplicitRungeKutta as ExplicitRungeKutta,
    GatedRK2 as GatedRK2,
    unrolled as unrolled,
)
from .splitting import (
    AbstractSequentialSplitting as AbstractSequentialSplitting,
    AbstractSplitting as AbstractSplitting,
    Composition as Composition,
    ConsistentPaperSplitting as ConsistentPaperSplitting,
    ExactFlow as ExactFlow,
    LieStrang as LieStrang,
    LieTrotter as LieTrotter,
    PaperSplitting as PaperSplitting,
    ParallelSplitting as ParallelSplitting,
    Strang as Strang,
    Suzuki4 as Suzuki4,
    Yoshida4 as Yoshida4,
)
