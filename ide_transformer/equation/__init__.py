"""The equation: domain, operators, constraints, controls, terms."""

from .affine import affine as affine
from .constraints import (
    AbstractConstraint as AbstractConstraint,
    AbstractRescaling as AbstractRescaling,
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
    low_precision as low_precision,
    with_source as with_source,
)
from .domain import TokenDomain as TokenDomain
from .equation import Equation as Equation, as_control as as_control
from .operators import (
    RESIDUALS as RESIDUALS,
    AbstractExactOperator as AbstractExactOperator,
    AbstractLinearOperator as AbstractLinearOperator,
    AbstractOperator as AbstractOperator,
    AbstractPositions as AbstractPositions,
    AbstractRegion as AbstractRegion,
    AbstractSourcedOperator as AbstractSourcedOperator,
    AbstractTokenIntegral as AbstractTokenIntegral,
    Attention as Attention,
    CrossAttention as CrossAttention,
    Damping as Damping,
    DeltaRule as DeltaRule,
    Diffusion as Diffusion,
    Domains as Domains,
    Dropout as Dropout,
    FeatureIntegral as FeatureIntegral,
    FeedForward as FeedForward,
    Fredholm as Fredholm,
    GatedFeedForward as GatedFeedForward,
    Linear as Linear,
    NoPositions as NoPositions,
    RelativeBias as RelativeBias,
    Relaxation as Relaxation,
    Rotary as Rotary,
    Scaled as Scaled,
    SourcedAttention as SourcedAttention,
    Volterra as Volterra,
    drop as drop,
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    integrate as integrate,
    product as product,
    quick_gelu as quick_gelu,
    relu as relu,
    silu as silu,
)
from .shapes import Depth as Depth, State as State
from .terms import (
    OperatorField as OperatorField,
    frozen as frozen,
    make_terms as make_terms,
    map_fields as map_fields,
    operator_fields as operator_fields,
    without_constraint as without_constraint,
)
from .tree import map_parts as map_parts, parts as parts
