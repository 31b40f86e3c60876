"""The equation: domain, operators, constraints, controls, terms."""

from .arrays import Depth, State, affine, float_array, inverse_affine, root
from .constraints import AbstractNormalization, AbstractRescaling
from .controls.control import low_precision
from .controls.mapped import with_source
from .devices import LAYOUT_AXES, on_devices, partition_spec
from .domain import by_samples
from .equation import as_control, contents
from .function_space import PLAIN
from .low_rank import (
    LowRank,
    merge_low_rank,
    partition_weights,
    with_low_rank,
    without_low_rank,
)
from .operators.attention import AbstractAttention
from .operators.convolution import convolve
from .operators.feed_forward import AbstractFeedForward, Activation, product
from .operators.grid import Dimension, check_axes, grid_axes, on_grid
from .operators.operator import AbstractWrappedOperator, Spectral, by_kind, check_features
from .operators.positions import differences
from .operators.token_integral import RESIDUALS, integrate
from .operators.wrapped import drop, scale_operator
from .public import *
from .rules import PointRule
from .spelling import count_weights, listing, spell, spell_options
from .terms import OperatorField, make_terms, operator_fields, slow_terms, without_constraint
from .tree import map_parts, parts, with_fields
