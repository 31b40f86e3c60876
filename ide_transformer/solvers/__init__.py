"""Time-stepping schemes: diffrax solvers, in folders by kind."""

from .base.coefficients import AbstractCoefficient as AbstractCoefficient, learned as learned
from .base.evaluations import (
    Evaluations as Evaluations,
    count_evaluations as count_evaluations,
    evaluations_made as evaluations_made,
)
from .base.projected import (
    Projected as Projected,
    keeps_constraint as keeps_constraint,
    projected as projected,
)
from .base.random_scheme import draws as draws, with_key as with_key
from .base.reversible import (
    AbstractCoupling as AbstractCoupling,
    AbstractReversible as AbstractReversible,
    Couplings as Couplings,
    Retraction as Retraction,
    Shear as Shear,
    find_couplings as find_couplings,
)
from .base.scheme import (
    AbstractFieldScheme as AbstractFieldScheme,
    AbstractOneStep as AbstractOneStep,
    AbstractScheme as AbstractScheme,
    inconsistent as inconsistent,
    restarts_at_jumps as restarts_at_jumps,
)
from .base.step import (
    Step as Step,
    StepField as StepField,
    finite as finite,
    first_failure as first_failure,
    single_step as single_step,
    success as success,
)
from .base.tangential import Tangential as Tangential
from .base.wrapper import schemes_inside as schemes_inside
from .blocks import Residual as Residual, Velocity as Velocity
from .connections.attention_residual import AttentionResidual as AttentionResidual
from .connections.doubly_stochastic_connections import (
    DoublyStochasticConnections as DoublyStochasticConnections,
)
from .connections.hyper_connections import HyperConnections as HyperConnections
from .connections.learned_multistep import LearnedMultistep as LearnedMultistep
from .connections.past import AbstractConnected as AbstractConnected
from .exponential import ETDAB2 as ETDAB2, ExponentialEuler as ExponentialEuler
from .implicit.implicit_schemes import (
    AbstractImplicitScheme as AbstractImplicitScheme,
    ImplicitEuler as ImplicitEuler,
    ImplicitMidpoint as ImplicitMidpoint,
)
from .implicit.matrix_free import MatrixFree as MatrixFree, matrix_free as matrix_free
from .implicit.steady_state import SteadyState as SteadyState
from .momentum import (
    AbstractMomentum as AbstractMomentum,
    HeavyBall as HeavyBall,
    InitialVelocity as InitialVelocity,
    Nesterov as Nesterov,
    PresymplecticEuler as PresymplecticEuler,
)
from .multistep import (
    AdamsBashforth as AdamsBashforth,
    Bidirectional as Bidirectional,
    Leapfrog as Leapfrog,
)
from .reversible.algebraically_reversible import (
    AlgebraicallyReversible as AlgebraicallyReversible,
)
from .runge_kutta.explicit_runge_kutta import (
    ExplicitRungeKutta as ExplicitRungeKutta,
    unrolled as unrolled,
)
from .runge_kutta.runge_kutta import (
    RK4 as RK4,
    GatedRK2 as GatedRK2,
    refuse_past as refuse_past,
)
from .splitting.composition import (
    Composition as Composition,
    Suzuki4 as Suzuki4,
    Yoshida4 as Yoshida4,
)
from .splitting.exact_flow import ExactFlow as ExactFlow
from .splitting.lie_and_strang import (
    LieStrang as LieStrang,
    LieTrotter as LieTrotter,
    ParallelSplitting as ParallelSplitting,
    Strang as Strang,
)
from .splitting.paper_splitting import (
    ConsistentPaperSplitting as ConsistentPaperSplitting,
    PaperSplitting as PaperSplitting,
)
from .splitting.splitting import (
    AbstractSequentialSplitting as AbstractSequentialSplitting,
    AbstractSplitting as AbstractSplitting,
    splitting_of as splitting_of,
    with_sub_solver as with_sub_solver,
)
