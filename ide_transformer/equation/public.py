"""Public names of the equation."""

from .constraints import (
    AbstractConstraint,
    Free,
    LayerNorm,
    Nonnegative,
    RMSNorm,
    RMSSphere,
    Sphere,
)
from .controls.control import AbstractControl, PiecewiseConstant, PiecewiseLinear, Tied
from .controls.expansion import AbstractExpansion, Chebyshev, Hypernetwork
from .controls.mapped import Functional, Rated, Sampled, Sourced
from .domain import TokenDomain
from .equation import Equation
from .function_space import AbstractBasis, Cosine, FeatureDomain, FunctionSpace, Legendre, Nodal
from .operators.attention import Attention, CrossAttention, SourcedAttention
from .operators.convolution import Convolution, ConvolutionalFeedForward
from .operators.convolutional_attention import ConvolutionalAttention
from .operators.damping import Damping, Injection, Relaxation, StableDamping
from .operators.feed_forward import (
    FeatureIntegral,
    FeedForward,
    GatedFeedForward,
    Linear,
    gelu,
    gelu_tanh,
    quick_gelu,
    relu,
    silu,
)
from .operators.operator import (
    AbstractExactOperator,
    AbstractLinearOperator,
    AbstractOperator,
    AbstractSourcedOperator,
    AbstractTokenIntegral,
)
from .operators.positions import (
    AbstractPositions,
    AbstractRegion,
    Fredholm,
    LinearBias,
    NoPositions,
    RelativeBias,
    Rotary,
    Volterra,
)
from .operators.waves import Diffusion, FourierIntegral
from .operators.wrapped import Dropout, Scaled
from .transfer import interpolation
