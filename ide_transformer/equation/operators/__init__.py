from .activations import (
    gelu as gelu,
    gelu_tanh as gelu_tanh,
    relu as relu,
    silu as silu,
)
from .attention import Attention as Attention
from .dropout import Dropout as Dropout, drop as drop
from .feed_forward import FeedForward as FeedForward
from .gated_feed_forward import GatedFeedForward as GatedFeedForward
from .operator import AbstractOperator as AbstractOperator
from .positions import (
    AbstractPositions as AbstractPositions,
    NoPositions as NoPositions,
    Rotary as Rotary,
)
from .region import (
    AbstractRegion as AbstractRegion,
    Fredholm as Fredholm,
    Volterra as Volterra,
)
