from .adams_bashforth import AdamsBashforth as AdamsBashforth
from .algebraically_reversible import AlgebraicallyReversible as AlgebraicallyReversible
from .coefficients import (
    AbstractCoefficient as AbstractCoefficient,
    Positive as Positive,
    UnitInterval as UnitInterval,
    learned as learned,
)
from .composition import (
    Composition as Composition,
    suzuki4 as suzuki4,
    yoshida4 as yoshida4,
)
from .couplings import (
    AbstractCoupling as AbstractCoupling,
    Retraction as Retraction,
    Shear as Shear,
    Swap as Swap,
)
from .etdab2 import ETDAB2 as ETDAB2
from .evaluations import (
    Evaluations as Evaluations,
    count_evaluations as count_evaluations,
)
from .exact_flow import ExactFlow as ExactFlow
from .explicit_runge_kutta import (
    ExplicitRungeKutta as ExplicitRungeKutta,
    unrolled as unrolled,
)
from .exponential_euler import ExponentialEuler as ExponentialEuler
from .gated_rk2 import GatedRK2 as GatedRK2
from .heavy_ball import HeavyBall as HeavyBall
from .implicit import (
    AbstractImplicitScheme as AbstractImplicitScheme,
    EvaluationCount as EvaluationCount,
    evaluations_made as evaluations_made,
)
from .implicit_euler import ImplicitEuler as ImplicitEuler
from .implicit_midpoint import ImplicitMidpoint as ImplicitMidpoint
from .leapfrog import Leapfrog as Leapfrog
from .lie_strang import LieStrang as LieStrang
from .lie_trotter import LieTrotter as LieTrotter
from .matrix_free import MatrixFree as MatrixFree, matrix_free as matrix_free
from .momentum import AbstractMomentum as AbstractMomentum
from .nesterov import Nesterov as Nesterov
from .on_blocks import BlockField as BlockField, ResidualField as ResidualField
from .paper_splitting import (
    ConsistentPaperSplitting as ConsistentPaperSplitting,
    PaperSplitting as PaperSplitting,
)
from .parallel_splitting import ParallelSplitting as ParallelSplitting
from .presymplectic_euler import PresymplecticEuler as PresymplecticEuler
from .projected import Projected as Projected, projected as projected
from .residual import Residual as Residual
from .reversible import (
    AbstractReversible as AbstractReversible,
    Couplings as Couplings,
    find_couplings as find_couplings,
    loses_companion as loses_companion,
)
from .rk4 import RK4 as RK4
from .splitting import AbstractSplit as AbstractSplit, AbstractSplitting as AbstractSplitting
from .steady_state import SteadyState as SteadyState
from .strang import Strang as Strang
from .velocity import Velocity as Velocity
