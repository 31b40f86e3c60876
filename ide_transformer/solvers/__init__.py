"""Time-stepping schemes: diffrax solvers, a file for each family."""

from .blocks import (
    ConsistentPaperSplitting as ConsistentPaperSplitting,
    PaperSplitting as PaperSplitting,
    Residual as Residual,
    Velocity as Velocity,
)
from .connections import (
    AbstractConnected as AbstractConnected,
    AttentionResidual as AttentionResidual,
    DoublyStochasticConnections as DoublyStochasticConnections,
    HyperConnections as HyperConnections,
    LearnedMultistep as LearnedMultistep,
)
from .evaluations import (
    EvaluationCount as EvaluationCount,
    Evaluations as Evaluations,
    count_evaluations as count_evaluations,
    evaluations_made as evaluations_made,
)
from .implicit import (
    AbstractImplicitScheme as AbstractImplicitScheme,
    ImplicitEuler as ImplicitEuler,
    ImplicitMidpoint as ImplicitMidpoint,
    MatrixFree as MatrixFree,
    SteadyState as SteadyState,
    matrix_free as matrix_free,
)
from .momentum import (
    AbstractCoefficient as AbstractCoefficient,
    AbstractMomentum as AbstractMomentum,
    HeavyBall as HeavyBall,
    InitialVelocity as InitialVelocity,
    Nesterov as Nesterov,
    PresymplecticEuler as PresymplecticEuler,
    learned as learned,
)
from .multistep import (
    ETDAB2 as ETDAB2,
    AdamsBashforth as AdamsBashforth,
    Bidirectional as Bidirectional,
    ExponentialEuler as ExponentialEuler,
    draws as draws,
    with_key as with_key,
)
from .reversible import (
    AbstractCoupling as AbstractCoupling,
    AbstractReversible as AbstractReversible,
    Couplings as Couplings,
    Leapfrog as Leapfrog,
    Shear as Shear,
    couplings_of as couplings_of,
)
from .runge_kutta import (
    RK4 as RK4,
    ExplicitRungeKutta as ExplicitRungeKutta,
    GatedRK2 as GatedRK2,
    unrolled as unrolled,
)
from .scheme import (
    AbstractFieldScheme as AbstractFieldScheme,
    AbstractOneStep as AbstractOneStep,
    AbstractScheme as AbstractScheme,
    Step as Step,
    StepField as StepField,
    first_failure as first_failure,
    inconsistent as inconsistent,
    restarts_at_jumps as restarts_at_jumps,
    single_step as single_step,
)
from .splitting import (
    AbstractSequentialSplitting as AbstractSequentialSplitting,
    AbstractSplitting as AbstractSplitting,
    Composition as Composition,
    ExactFlow as ExactFlow,
    LieStrang as LieStrang,
    LieTrotter as LieTrotter,
    ParallelSplitting as ParallelSplitting,
    Strang as Strang,
    Suzuki4 as Suzuki4,
    Yoshida4 as Yoshida4,
    splitting_of as splitting_of,
    with_sub_solver as with_sub_solver,
)
from .wrapper import (
    AlgebraicallyReversible as AlgebraicallyReversible,
    Projected as Projected,
    Tangential as Tangential,
    keeps_constraint as keeps_constraint,
    projected as projected,
    start_inside as start_inside,
)
