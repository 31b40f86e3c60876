"""The public names of contrib."""

from .baselines import FNO, Resnet, Unet
from .bidirectional import Bidirectional
from .by_length import AbstractSequencesByLength, ColumnAddition, Parity, WordProblem
from .channels_first import ChannelsFirst
from .connections import (
    AttentionResidual,
    DoublyStochasticConnections,
    HyperConnections,
    LearnedMultistep,
)
from .constant_coefficients import ConstantCoefficients
from .controlled import (
    Approximations,
    Costates,
    Steering,
    costates,
    log_odds,
    steer,
    successive_approximations,
)
from .costs import ConstraintViolation, Contraction, ControlEnergy, Smoothness
from .darcy import Darcy
from .gated import GatedRK2
from .growth import Stacked
from .layer_norm_scaling import LayerNormScaling
from .layers import MOVES, Layered, drops, extensions, mergers, native_layers, selections
from .local_flux import LocalFlux
from .mazes import Maze
from .meshes import Coarsening, Quantity, Target, coarsen, coarsenings, fit_rates, native_target
from .momentum import (
    AbstractCoefficient,
    AbstractMomentum,
    InitialVelocity,
    MomentumLanguageModel,
    Nesterov,
    PresymplecticEuler,
    VelocityInputs,
)
from .recurrence import GatedRecurrence
from .replaced_layers import least_turned, replace_layers
from .scales import Distances, distances
from .sequences import AbstractSequences, PHop
from .slices import SliceAttention
from .split_models import GridNetwork, SplitModel
from .stabilisers import NoisySteps
from .steady_state import SteadyState
from .v_cycle import PairFeedForward, VCycle
from .windows import Walk, walked_state
