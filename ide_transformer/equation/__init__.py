"""The equation: domain, operators, constraints, controls, terms."""

from .affine import affine as affine
from .bases import (
    AbstractBasis as AbstractBasis,
    Cosine as Cosine,
    Legendre as Legendre,
    Nodal as Nodal,
    Warped as Warped,
    Waves as Waves,
)
from .constraints.normalization import AbstractNormalization as AbstractNormalization
from .constraints.sets import (
    AbstractConstraint as AbstractConstraint,
    AbstractRescaling as AbstractRescaling,
    Free as Free,
    Nonnegative as Nonnegative,
)
from .constraints.spheres import (
    LayerNorm as LayerNorm,
    RMSNorm as RMSNorm,
    RMSSphere as RMSSphere,
    Sphere as Sphere,
)
from .controls.chebyshev import Chebyshev as Chebyshev
from .controls.control import AbstractControl as AbstractControl, low_precision as low_precision
from .controls.expansion import AbstractExpansion as AbstractExpansion
from .controls.fourier import Fourier as Fourier
from .controls.functional import Functional as Functional
from .controls.hypernetwork import Hypernetwork as Hypernetwork
from .controls.piecewise_constant import PiecewiseConstant as PiecewiseConstant
from .controls.piecewise_linear import PiecewiseLinear as PiecewiseLinear
from .controls.sampled import Sampled as Sampled
from .controls.sourced import Sourced as Sourced, with_source as with_source
from .controls.tied import Tied as Tied
from .devices import LAYOUT_AXES as LAYOUT_AXES, divided as divided, on_devices as on_devices
from .domain import TokenDomain as TokenDomain
from .equation import Equation as Equation, as_control as as_control, contents as contents
from .feature_domain import FeatureDomain as FeatureDomain
from .function_space import PLAIN as PLAIN, FunctionSpace as FunctionSpace
from .held import holding as holding
from .operators.abstract_attention import AbstractAttention as AbstractAttention
from .operators.activations import (
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    quick_gelu as quick_gelu,
    relu as relu,
    silu as silu,
)
from .operators.advection import Advection as Advection
from .operators.attention import Attention as Attention
from .operators.convolution import Convolution as Convolution
from .operators.convolutional_attention import ConvolutionalAttention as ConvolutionalAttention
from .operators.cross_attention import CrossAttention as CrossAttention
from .operators.damping import Damping as Damping
from .operators.delta_rule import DeltaRule as DeltaRule
from .operators.difference_advection import DifferenceAdvection as DifferenceAdvection
from .operators.difference_diffusion import DifferenceDiffusion as DifferenceDiffusion
from .operators.diffusion import Diffusion as Diffusion
from .operators.dropout import Dropout as Dropout, drop as drop
from .operators.exact import (
    AbstractExactOperator as AbstractExactOperator,
    AbstractLinearOperator as AbstractLinearOperator,
)
from .operators.feature_integral import FeatureIntegral as FeatureIntegral
from .operators.feed_forward import FeedForward as FeedForward
from .operators.fourier_integral import FourierIntegral as FourierIntegral
from .operators.galerkin_attention import GalerkinAttention as GalerkinAttention
from .operators.gated_feed_forward import GatedFeedForward as GatedFeedForward
from .operators.gaussian_attention import GaussianAttention as GaussianAttention
from .operators.injection import Injection as Injection
from .operators.layer_drop import LayerDrop as LayerDrop
from .operators.layer_norm_scaling import LayerNormScaling as LayerNormScaling
from .operators.linear import Linear as Linear, product as product
from .operators.linear_attention import LinearAttention as LinearAttention
from .operators.operator import (
    AbstractOperator as AbstractOperator,
    AbstractWrappedOperator as AbstractWrappedOperator,
    check_features as check_features,
)
from .operators.positions import (
    AbstractPositions as AbstractPositions,
    LinearBias as LinearBias,
    NoPositions as NoPositions,
    RelativeBias as RelativeBias,
    Rotary as Rotary,
)
from .operators.quadrature.integrate import integrate as integrate
from .operators.quadrature.token_mean import RESIDUALS as RESIDUALS, Domains as Domains
from .operators.random_operator import AbstractRandomOperator as AbstractRandomOperator
from .operators.region import (
    AbstractRegion as AbstractRegion,
    Fredholm as Fredholm,
    Neighborhood as Neighborhood,
    Volterra as Volterra,
)
from .operators.relaxation import Relaxation as Relaxation
from .operators.scaled import Scaled as Scaled
from .operators.sinkhorn_attention import SinkhornAttention as SinkhornAttention
from .operators.sourced import AbstractSourcedOperator as AbstractSourcedOperator
from .operators.sourced_attention import SourcedAttention as SourcedAttention
from .operators.stable_damping import StableDamping as StableDamping
from .operators.token_integral import AbstractTokenIntegral as AbstractTokenIntegral
from .rules import PointRule as PointRule
from .shapes import Depth as Depth, State as State
from .spelling import (
    listing as listing,
    number_of_weights as number_of_weights,
    spelled as spelled,
    spelled_options as spelled_options,
)
from .terms import (
    OperatorField as OperatorField,
    frozen as frozen,
    make_terms as make_terms,
    operator_fields as operator_fields,
    slowed as slowed,
    without_constraint as without_constraint,
)
from .transfer import (
    coarsened as coarsened,
    grid_of as grid_of,
    interpolation as interpolation,
    lattice as lattice,
    restriction as restriction,
)
from .tree import map_parts as map_parts, parts as parts, with_fields as with_fields
