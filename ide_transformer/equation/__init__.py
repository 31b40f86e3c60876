"""The equation: domain, operators, constraints, controls, terms."""

from .arrays import Depth as Depth, State as State, affine as affine, float_array as float_array
from .constraints import (
    AbstractConstraint as AbstractConstraint,
    AbstractNormalization as AbstractNormalization,
    AbstractRescaling as AbstractRescaling,
    Free as Free,
    LayerNorm as LayerNorm,
    Nonnegative as Nonnegative,
    RMSNorm as RMSNorm,
    RMSSphere as RMSSphere,
    Sphere as Sphere,
)
from .controls.control import (
    AbstractControl as AbstractControl,
    PiecewiseConstant as PiecewiseConstant,
    PiecewiseLinear as PiecewiseLinear,
    Tied as Tied,
    low_precision as low_precision,
)
from .controls.expansion import (
    AbstractExpansion as AbstractExpansion,
    Chebyshev as Chebyshev,
    Fourier as Fourier,
    Hypernetwork as Hypernetwork,
)
from .controls.mapped import (
    Functional as Functional,
    Sampled as Sampled,
    Sourced as Sourced,
    with_source as with_source,
)
from .devices import LAYOUT_AXES as LAYOUT_AXES, divided as divided, on_devices as on_devices
from .domain import TokenDomain as TokenDomain, grid_of as grid_of, lattice as lattice
from .equation import Equation as Equation, as_control as as_control, contents as contents
from .function_space import (
    PLAIN as PLAIN,
    AbstractBasis as AbstractBasis,
    Cosine as Cosine,
    FeatureDomain as FeatureDomain,
    FunctionSpace as FunctionSpace,
    Legendre as Legendre,
    Nodal as Nodal,
    Warped as Warped,
    Waves as Waves,
)
from .operators.attention import (
    AbstractAttention as AbstractAttention,
    Attention as Attention,
    CrossAttention as CrossAttention,
    SourcedAttention as SourcedAttention,
)
from .operators.attention_kernels import (
    GalerkinAttention as GalerkinAttention,
    GaussianAttention as GaussianAttention,
    LinearAttention as LinearAttention,
    SinkhornAttention as SinkhornAttention,
)
from .operators.convolutional_attention import ConvolutionalAttention as ConvolutionalAttention
from .operators.damping import (
    Damping as Damping,
    DeltaRule as DeltaRule,
    Injection as Injection,
    Relaxation as Relaxation,
    StableDamping as StableDamping,
)
from .operators.feed_forward import (
    FeatureIntegral as FeatureIntegral,
    FeedForward as FeedForward,
    GatedFeedForward as GatedFeedForward,
    Linear as Linear,
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    product as product,
    quick_gelu as quick_gelu,
    relu as relu,
    silu as silu,
)
from .operators.grid import (
    Advection as Advection,
    Convolution as Convolution,
    DifferenceAdvection as DifferenceAdvection,
    DifferenceDiffusion as DifferenceDiffusion,
    Diffusion as Diffusion,
    FourierIntegral as FourierIntegral,
)
from .operators.operator import (
    AbstractExactOperator as AbstractExactOperator,
    AbstractLinearOperator as AbstractLinearOperator,
    AbstractOperator as AbstractOperator,
    AbstractSourcedOperator as AbstractSourcedOperator,
    AbstractTokenIntegral as AbstractTokenIntegral,
    AbstractWrappedOperator as AbstractWrappedOperator,
    check_features as check_features,
)
from .operators.positions import (
    AbstractPositions as AbstractPositions,
    AbstractRegion as AbstractRegion,
    Fredholm as Fredholm,
    LinearBias as LinearBias,
    Neighborhood as Neighborhood,
    NoPositions as NoPositions,
    RelativeBias as RelativeBias,
    Rotary as Rotary,
    Volterra as Volterra,
)
from .operators.quadrature.integrate import integrate as integrate
from .operators.quadrature.token_mean import RESIDUALS as RESIDUALS, Domains as Domains
from .operators.wrapped import (
    AbstractRandomOperator as AbstractRandomOperator,
    Dropout as Dropout,
    LayerDrop as LayerDrop,
    LayerNormScaling as LayerNormScaling,
    Scaled as Scaled,
    drop as drop,
)
from .rules import PointRule as PointRule
from .spelling import (
    listing as listing,
    number_of_weights as number_of_weights,
    spelled as spelled,
    spelled_options as spelled_options,
)
from .terms import (
    holding as holding,
    make_terms as make_terms,
    map_operators as map_operators,
    operator_fields as operator_fields,
    slowed as slowed,
    without_constraint as without_constraint,
)
from .transfer import (
    coarsened as coarsened,
    interpolation as interpolation,
    restriction as restriction,
)
from .tree import map_parts as map_parts, parts as parts, with_fields as with_fields
