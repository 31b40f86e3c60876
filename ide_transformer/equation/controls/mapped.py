"""Controls that change the blocks of another control."""

import abc
from dataclasses import replace
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ...arguments import checked
from ..arrays import Depth, State
from ..constraints import AbstractConstraint
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..operators.operator import (
    AbstractOperator,
    AbstractSourcedOperator,
    AbstractWrappedOperator,
)
from ..operators.wrapped import Dropout, scale_operator
from ..tree import map_parts, parts
from .control import AbstractControl, locate, take


class AbstractMappedControl(AbstractControl):
    """A control that changes the blocks of another control."""

    control: AbstractControl

    configurable: ClassVar[bool] = False

    @abc.abstractmethod
    def change_block(self, block: PyTree, data: PyTree[Array]) -> PyTree:
        """Changes a block of the inner control, with the `interval_data` of its interval."""

    def interval_data(self) -> PyTree[Array]:
        """The stacked data of the intervals for `change_block`; by default none."""

    @property
    def continuous(self) -> bool:
        return self.control.continuous

    @property
    def depth_axes(self) -> int:
        return self.control.depth_axes

    @property
    def interval_length(self) -> float:
        return self.control.interval_length

    @property
    def layers(self) -> int:
        return self.control.layers

    def intervals(self) -> PyTree[Array]:
        return self.control.intervals(), self.interval_data()

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        interval, data = interval
        return self.change_block(self.control.local(interval, s), data)

    def __call__(self, t: Depth) -> PyTree:
        index, _ = locate(self, t)
        return self.change_block(self.control(t), take(self.interval_data(), index))

    def tabulate(self, fractions: np.ndarray) -> "AbstractMappedControl":
        return replace(self, control=self.control.tabulate(fractions))

    def resample(self, layers: int) -> "AbstractMappedControl":
        return replace(self, control=self.control.resample(layers))

    def extend(self, horizon: float) -> "AbstractMappedControl":
        return replace(self, control=self.control.extend(horizon))


@checked
class Functional(AbstractMappedControl):
    """Reads the weights of another control as coefficients of functions of the features,

        W(y, ξ, t) = Σ_ab C_ab(t) φ_a(y) φ_b(ξ),

    at the points of Ω_y. Solutions converge as the number of points grows.

    **Arguments:** `control`, C(t), a control for states of `space.modes` features; `space`, the
    basis φ and the points.
    """

    space: FunctionSpace

    def change_block(self, block: PyTree, data: None) -> PyTree:
        kinds = AbstractOperator, AbstractConstraint
        return map_parts(block, kinds, lambda part, _: part.at_points(self.space))


@checked
class Sampled(AbstractMappedControl):
    """A control that draws its `Dropout` masks once in each interval.

    Every stage of a step sees one field, so schemes keep their order.

    **Arguments:** `control`, with `Dropout` in its blocks, and the `key` of the draws.
    """

    key: PRNGKeyArray

    continuous: ClassVar[bool] = False

    def interval_data(self) -> Array:
        return jax.random.split(self.key, self.layers)

    def change_block(self, block: PyTree, data: PRNGKeyArray) -> PyTree:
        return _with_key(block, key=data)


def _with_key(block: PyTree, key: PRNGKeyArray) -> PyTree:
    """Sets a different key in each `Dropout`."""

    def draw(operator: Dropout, place: int) -> Dropout:
        dropout_key = jax.random.fold_in(key, place)
        return replace(
            operator, operator=_with_key(operator.operator, dropout_key), key=dropout_key
        )

    return map_parts(block, Dropout, draw)


@checked
class Sourced(AbstractMappedControl):
    """Inserts a source f into the operators `A(u; f)` of a control.

    `SourcedAttention`, `Injection` and `Relaxation` take f on the domain of the state,
    `CrossAttention` on a second domain. For both, nest two `Sourced`.

    **Arguments:**

    - `control`: the control of the operators.
    - `source`: f, `[..., tokens, features]`, for example the state at depth 0, or the states of
      an encoder.
    - `domain`: the domain of f; `None` for the domain of the state.
    """

    source: State
    domain: TokenDomain | None = None

    def change_block(self, block: PyTree, data: None) -> PyTree:
        return map_parts(
            block, AbstractSourcedOperator, lambda x, _: x.with_source(self.source, self.domain)
        )


@checked
class Rated(AbstractMappedControl):
    """Multiplies all operators by a rate, `u_t = λ Σ_i A_i(u; θ(t))`. This is the original
    equation up to depth λ T, with weights stretched over that depth.

    **Arguments:**

    - `control`: the control of the original equation.
    - `rate`: λ, a number; or `[samples]`, for which operators have no exact flow.
    """

    rate: Float[Array, "*samples"]

    def change_block(self, block: PyTree, data: None) -> PyTree:
        scale = _ScaledBySample if self.rate.ndim else scale_operator
        return tuple(scale(operator, self.rate) for operator in block)


class _ScaledBySample(AbstractWrappedOperator):
    """`du/dt = λ A(u)`, with one λ per sample."""

    rate: Float[Array, "*samples"]

    configurable: ClassVar[bool] = False

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return self.rate[..., None, None].astype(u.dtype) * self.operator(u, domain)


def with_source(
    control: AbstractControl, source: State, domain: TokenDomain | None = None
) -> AbstractControl:
    """`Sourced(control, source, domain)` if an operator takes a source, else the control."""
    takes_source = parts(control, AbstractSourcedOperator)
    return Sourced(control, source, domain) if takes_source else control
