"""Controls that change the operators of another control at each depth."""

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
from ..operators.wrapped import Dropout, scaled
from ..tree import map_parts, parts
from .control import AbstractControl, locate, take


class AbstractMappedControl(AbstractControl):
    """Changes the blocks of another control, on the same intervals."""

    control: AbstractControl

    configurable: ClassVar[bool] = False

    @abc.abstractmethod
    def changed(self, block: PyTree, own: PyTree[Array]) -> PyTree:
        """Changes a block of the other control, given the `own` data of the interval."""

    def own_intervals(self) -> PyTree[Array]:
        """The data that `changed` takes for each interval, stacked."""

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
        return self.control.intervals(), self.own_intervals()

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        interval, own = interval
        return self.changed(self.control.local(interval, s), own)

    def __call__(self, t: Depth) -> PyTree:
        index, _ = locate(self, t)
        return self.changed(self.control(t), take(self.own_intervals(), index))

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

    at the points of Ω_y. Solutions converge with their number.

    **Arguments:** `control`, C(t), an ordinary control for states of `space.modes` features;
    `space`, φ and the points.
    """

    space: FunctionSpace

    def changed(self, block: PyTree, own: None) -> PyTree:
        kinds = AbstractOperator, AbstractConstraint
        return map_parts(block, kinds, lambda part, _: part.at_points(self.space))


@checked
class Sampled(AbstractMappedControl):
    """A control that draws its `Dropout` masks once in each interval.

    Every stage of a step sees the same field, so schemes keep their order.

    **Arguments:** `control`, whose blocks hold `Dropout`, and the `key` of the draws.
    """

    key: PRNGKeyArray

    continuous: ClassVar[bool] = False

    def own_intervals(self) -> Array:
        return jax.random.split(self.key, self.layers)

    def changed(self, block: PyTree, own: PRNGKeyArray) -> PyTree:
        return _with_key(block, own)


def _with_key(block: PyTree, key: PRNGKeyArray) -> PyTree:
    """The block with a key for each `Dropout`."""

    def draw(operator: Dropout, place: int) -> Dropout:
        own = jax.random.fold_in(key, place)
        return replace(operator, operator=_with_key(operator.operator, own), key=own)

    return map_parts(block, Dropout, draw)


@checked
class Sourced(AbstractMappedControl):
    """A control whose operators `A(u; f)` see a source f.

    `SourcedAttention`, `Injection` and `Relaxation` take f on the domain of the state,
    `CrossAttention` on a second domain. Nest two `Sourced` for both.

    **Arguments:**

    - `control`: the control.
    - `source`: f, `[..., tokens, features]`: usually the state at depth 0, or the states of an
      encoder.
    - `domain`: the domain of f; `None` for the domain of the state.
    """

    source: State
    domain: TokenDomain | None = None

    def changed(self, block: PyTree, own: None) -> PyTree:
        return map_parts(
            block, AbstractSourcedOperator, lambda x, _: x.with_source(self.source, self.domain)
        )


@checked
class Rated(AbstractMappedControl):
    """The control of another equation, solved λ times as fast: `u_t = λ Σ_i A_i(u; θ(t))`. A
    solution is one of the other equation over λ T, with its weights stretched over that depth.

    **Arguments:**

    - `control`: the control of the other equation.
    - `rate`: λ, a number, or `[samples]` for one of each sample; then operators have no exact
      flow.
    """

    rate: Float[Array, "*samples"]

    def changed(self, block: PyTree, own: None) -> PyTree:
        of = _OfSamples if self.rate.ndim else scaled
        return tuple(of(operator, self.rate) for operator in block)


class _OfSamples(AbstractWrappedOperator):
    """`du/dt = λ A(u)`, λ of each sample."""

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
