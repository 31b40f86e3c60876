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
    AbstractExpansion as AbstractExpansion,
    Chebyshev as Chebyshev,
    Fourier as Fourier,
    Hypernetwork as Hypernetwork,
    PiecewiseConstant as PiecewiseConstant,
    PiecewiseLinear as PiecewiseLinear,
    Sampled as Sampled,
    Sourced as Sourced,
    Tabulated as Tabulated,
    Tied as Tied,
    with_source as with_source,
)
from .depth import Depth as Depth
from .domain import TokenDomain as TokenDomain
from .equation import Equation as Equation, as_control as as_control
from .operators import (
    AbstractExactOperator as AbstractExactOperator,
    AbstractLinearOperator as AbstractLinearOperator,
    AbstractOperator as AbstractOperator,
    AbstractPositions as AbstractPositions,
    AbstractRegion as AbstractRegion,
    Attention as Attention,
    Damping as Damping,
    DeltaRule as DeltaRule,
    Diffusion as Diffusion,
    Dropout as Dropout,
    FeatureIntegral as FeatureIntegral,
    FeedForward as FeedForward,
    Fredholm as Fredholm,
    GatedFeedForward as GatedFeedForward,
    InjectedAttention as InjectedAttention,
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
    frozen as frozen,
    make_terms as make_terms,
    operator_fields as operator_fields,
    without_constraint as without_constraint,
)
