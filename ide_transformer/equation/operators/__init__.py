"""Operators: the terms of the right-hand side."""

from .activations import (
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    quick_gelu as quick_gelu,
    relu as relu,
    silu as silu,
)
from .attention import Attention as Attention
from .cross_attention import CrossAttention as CrossAttention
from .damping import Damping as Damping
from .delta_rule import DeltaRule as DeltaRule
from .diffusion import Diffusion as Diffusion
from .dropout import Dropout as Dropout, drop as drop
from .exact import (
    AbstractExactOperator as AbstractExactOperator,
    AbstractLinearOperator as AbstractLinearOperator,
)
from .feature_integral import FeatureIntegral as FeatureIntegral
from .feed_forward import FeedForward as FeedForward
from .gated_feed_forward import GatedFeedForward as GatedFeedForward
from .linear import Linear as Linear, product as product
from .operator import AbstractOperator as AbstractOperator
from .positions import (
    AbstractPositions as AbstractPositions,
    NoPositions as NoPositions,
    RelativeBias as RelativeBias,
    Rotary as Rotary,
)
from .quadrature import RESIDUALS as RESIDUALS, Domains as Domains, integrate as integrate
from .region import AbstractRegion as AbstractRegion, Fredholm as Fredholm, Volterra as Volterra
from .relaxation import Relaxation as Relaxation
from .scaled import Scaled as Scaled
from .sourced import AbstractSourcedOperator as AbstractSourcedOperator
from .sourced_attention import SourcedAttention as SourcedAttention
from .token_integral import AbstractTokenIntegral as AbstractTokenIntegral
