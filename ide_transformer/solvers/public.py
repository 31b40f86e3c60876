"""Its public names, which `ide_transformer` has too."""

from .blocks import (
    ConsistentPaperSplitting as ConsistentPaperSplitting,
    PaperSplitting as PaperSplitting,
    Residual as Residual,
    Velocity as Velocity,
)
from .connections import (
    AttentionResidual as AttentionResidual,
    DoublyStochasticConnections as DoublyStochasticConnections,
    HyperConnections as HyperConnections,
    LearnedMultistep as LearnedMultistep,
)
from .implicit import (
    AbstractImplicitScheme as AbstractImplicitScheme,
    ImplicitEuler as ImplicitEuler,
    ImplicitMidpoint as ImplicitMidpoint,
    MatrixFree as MatrixFree,
    SteadyState as SteadyState,
)
from .momentum import (
    AbstractCoefficient as AbstractCoefficient,
    AbstractMomentum as AbstractMomentum,
    HeavyBall as HeavyBall,
    InitialVelocity as InitialVelocity,
    Nesterov as Nesterov,
    PresymplecticEuler as PresymplecticEuler,
)
from .multistep import (
    ETDAB2 as ETDAB2,
    AdamsBashforth as AdamsBashforth,
    Bidirectional as Bidirectional,
    ExponentialEuler as ExponentialEuler,
)
from .reversible import (
    AbstractCoupling as AbstractCoupling,
    AbstractReversible as AbstractReversible,
    Leapfrog as Leapfrog,
    Shear as Shear,
)
from .runge_kutta import RK4 as RK4, GatedRK2 as GatedRK2
from .scheme import (
    AbstractFieldScheme as AbstractFieldScheme,
    AbstractOneStep as AbstractOneStep,
    AbstractScheme as AbstractScheme,
    Step as Step,
    StepField as StepField,
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
)
from .wrapper import (
    AlgebraicallyReversible as AlgebraicallyReversible,
    Projected as Projected,
    Tangential as Tangential,
    projected as projected,
)
