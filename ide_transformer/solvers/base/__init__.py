"""Parts of schemes: base classes, couplings, projection, evaluation counts."""

from .coefficients import (
    AbstractCoefficient as AbstractCoefficient,
    Positive as Positive,
    UnitInterval as UnitInterval,
    learned as learned,
)
from .couplings import (
    AbstractCoupling as AbstractCoupling,
    Retraction as Retraction,
    Shear as Shear,
    Swap as Swap,
)
from .evaluation_count import (
    EvaluationCount as EvaluationCount,
    evaluations_made as evaluations_made,
)
from .evaluations import Evaluations as Evaluations, count_evaluations as count_evaluations
from .projected import Projected as Projected, projected as projected
from .reversible import (
    AbstractReversible as AbstractReversible,
    Couplings as Couplings,
    find_couplings as find_couplings,
    loses_companion as loses_companion,
)
from .scheme import (
    AbstractFieldScheme as AbstractFieldScheme,
    AbstractOneStep as AbstractOneStep,
    AbstractScheme as AbstractScheme,
)
from .status import finite as finite, first_failure as first_failure, success as success
from .step import Step as Step, StepField as StepField, single_step as single_step
