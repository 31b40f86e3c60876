"""Its public names, which `ide_transformer` has too."""

from .constraints import (
    AbstractConstraint as AbstractConstraint,
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
)
from .controls.expansion import (
    AbstractExpansion as AbstractExpansion,
    Chebyshev as Chebyshev,
    Fourier as Fourier,
    Hypernetwork as Hypernetwork,
)
from .controls.mapped import Functional as Functional, Sampled as Sampled, Sourced as Sourced
from .domain import TokenDomain as TokenDomain
from .equation import Equation as Equation
from .function_space import (
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
from .operators.convolution import (
    Convolution as Convolution,
    ConvolutionalFeedForward as ConvolutionalFeedForward,
)
from .operators.convolutional_attention import ConvolutionalAttention as ConvolutionalAttention
from .operators.damping import (
    Damping as Damping,
    DeltaRule as DeltaRule,
    Injection as Injection,
    Relaxation as Relaxation,
    StableDamping as StableDamping,
)
from .operators.differences import (
    DifferenceAdvection as DifferenceAdvection,
    DifferenceDiffusion as DifferenceDiffusion,
)
from .operators.feed_forward import (
    FeatureIntegral as FeatureIntegral,
    FeedForward as FeedForward,
    GatedFeedForward as GatedFeedForward,
    Linear as Linear,
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    quick_gelu as quick_gelu,
    relu as relu,
    silu as silu,
)
from .operators.operator import (
    AbstractExactOperator as AbstractExactOperator,
    AbstractLinearOperator as AbstractLinearOperator,
    AbstractOperator as AbstractOperator,
    AbstractSourcedOperator as AbstractSourcedOperator,
    AbstractTokenIntegral as AbstractTokenIntegral,
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
from .operators.recurrence import GatedRecurrence as GatedRecurrence
from .operators.waves import (
    Advection as Advection,
    Diffusion as Diffusion,
    FourierIntegral as FourierIntegral,
)
from .operators.wrapped import (
    Dropout as Dropout,
    LayerDrop as LayerDrop,
    LayerNormScaling as LayerNormScaling,
    Scaled as Scaled,
)
from .transfer import (
    coarsened as coarsened,
    interpolation as interpolation,
    restriction as restriction,
)
