from .constraints import (
    AbstractConstraint as AbstractConstraint,
    Free as Free,
    LayerNorm as LayerNorm,
    Nonnegative as Nonnegative,
    RMSNorm as RMSNorm,
    RMSSphere as RMSSphere,
    Sphere as Sphere,
)
from .controls import (
    AbstractControl as AbstractControl,
    PiecewiseConstant as PiecewiseConstant,
    PiecewiseLinear as PiecewiseLinear,
    Sampled as Sampled,
    Tied as Tied,
)
from .depth import Depth as Depth
from .domain import TokenDomain as TokenDomain
from .equation import Equation as Equation
from .operators import (
    AbstractOperator as AbstractOperator,
    AbstractPositions as AbstractPositions,
    AbstractRegion as AbstractRegion,
    Attention as Attention,
    Dropout as Dropout,
    FeedForward as FeedForward,
    Fredholm as Fredholm,
    GatedFeedForward as GatedFeedForward,
    NoPositions as NoPositions,
    Rotary as Rotary,
    Volterra as Volterra,
    drop as drop,
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    relu as relu,
    silu as silu,
)
from .terms import (
    OperatorField as OperatorField,
    make_terms as make_terms,
    operator_fields as operator_fields,
    without_constraint as without_constraint,
)
