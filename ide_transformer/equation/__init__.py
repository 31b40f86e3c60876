"""The equation: domain, operators, constraints, controls, terms."""

from .arrays import Depth, State, affine, float_array
from .constraints import (
    AbstractConstraint,
    AbstractNormalization,
    AbstractRescaling,
    Free,
    LayerNorm,
    Nonnegative,
    RMSNorm,
    RMSSphere,
    Sphere,
)
from .controls.control import (
    AbstractControl,
    PiecewiseConstant,
    PiecewiseLinear,
    Tied,
    low_precision,
)
from .controls.expansion import AbstractExpansion, Chebyshev, Fourier, Hypernetwork
from .controls.mapped import Functional, Sampled, Sourced, with_source
from .devices import LAYOUT_AXES, divided, on_devices
from .domain import TokenDomain, grid_of, lattice
from .equation import Equation, as_control, contents
from .function_space import (
    PLAIN,
    AbstractBasis,
    Cosine,
    FeatureDomain,
    FunctionSpace,
    Legendre,
    Nodal,
    Warped,
    Waves,
)
from .operators.attention import AbstractAttention, Attention, CrossAttention, SourcedAttention
from .operators.attention_kernels import (
    GalerkinAttention,
    GaussianAttention,
    LinearAttention,
    SinkhornAttention,
)
from .operators.convolutional_attention import ConvolutionalAttention
from .operators.damping import Damping, DeltaRule, Injection, Relaxation, StableDamping
from .operators.feed_forward import (
    FeatureIntegral,
    FeedForward,
    GatedFeedForward,
    Linear,
    gelu,
    gelu_tanh,
    product,
    quick_gelu,
    relu,
    silu,
)
from .operators.grid import (
    Advection,
    Convolution,
    DifferenceAdvection,
    DifferenceDiffusion,
    Diffusion,
    FourierIntegral,
)
from .operators.operator import (
    AbstractExactOperator,
    AbstractLinearOperator,
    AbstractOperator,
    AbstractSourcedOperator,
    AbstractTokenIntegral,
    AbstractWrappedOperator,
    check_features,
)
from .operators.positions import (
    AbstractPositions,
    AbstractRegion,
    Fredholm,
    LinearBias,
    Neighborhood,
    NoPositions,
    RelativeBias,
    Rotary,
    Volterra,
)
from .operators.quadrature.integrate import integrate
from .operators.quadrature.token_mean import RESIDUALS
from .operators.wrapped import (
    AbstractRandomOperator,
    Dropout,
    LayerDrop,
    LayerNormScaling,
    Scaled,
    drop,
)
from .rules import PointRule
from .spelling import listing, number_of_weights, spelled, spelled_options
from .terms import (
    holding,
    make_terms,
    map_operators,
    operator_fields,
    slowed,
    without_constraint,
)
from .transfer import coarsened, interpolation, restriction
from .tree import map_parts, parts, with_fields
