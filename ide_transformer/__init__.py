"""Transformers as integro-differential equations: the field, the schemes, the training."""

from .equation import (
    AbstractConstraint as AbstractConstraint,
    AbstractControl as AbstractControl,
    AbstractOperator as AbstractOperator,
    AbstractPositions as AbstractPositions,
    AbstractRegion as AbstractRegion,
    Attention as Attention,
    Dropout as Dropout,
    Equation as Equation,
    FeedForward as FeedForward,
    Fredholm as Fredholm,
    Free as Free,
    GatedFeedForward as GatedFeedForward,
    LayerNorm as LayerNorm,
    Nonnegative as Nonnegative,
    NoPositions as NoPositions,
    PiecewiseConstant as PiecewiseConstant,
    PiecewiseLinear as PiecewiseLinear,
    RMSNorm as RMSNorm,
    RMSSphere as RMSSphere,
    Rotary as Rotary,
    Sampled as Sampled,
    Sphere as Sphere,
    Tied as Tied,
    TokenDomain as TokenDomain,
    Volterra as Volterra,
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    relu as relu,
    silu as silu,
)
from .errors import InputError as InputError
from .integration import (
    AbstractGradient as AbstractGradient,
    Checkpoint as Checkpoint,
    Direct as Direct,
    Solution as Solution,
    solve as solve,
)
from .models import (
    AbstractModel as AbstractModel,
    ImageClassifier as ImageClassifier,
    LanguageModel as LanguageModel,
    Scheme as Scheme,
    generate as generate,
)
from .solvers import (
    RK4 as RK4,
    AbstractSplitting as AbstractSplitting,
    LieTrotter as LieTrotter,
    Projected as Projected,
    Strang as Strang,
)
