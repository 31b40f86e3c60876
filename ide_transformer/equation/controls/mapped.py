"""Controls that change the operators of another one at each depth."""

import abc
from dataclasses import replace
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from ...arguments import checked
from ..arrays import Depth, State
from ..constraints import AbstractConstraint
from ..domain import TokenDomain
from ..function_space import FunctionSpace
from ..operators.operator import AbstractOperator, AbstractSourcedOperator
from ..operators.wrapped import AbstractRandomOperator
from ..tree import map_parts, parts
from .control import AbstractControl, locate, take


class AbstractMappedControl(AbstractControl):
    """A control whose blocks are those of another one, changed, on the same intervals."""

    control: AbstractControl

    configurable: ClassVar[bool] = False

    @abc.abstractmethod
    def changed(self, block: PyTree, own: PyTree[Array]) -> PyTree:
        """The block of this control, from that of the other and the own data of an interval."""

    def own_intervals(self) -> PyTree[Array]:
        """The own data of each interval, stacked."""

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
    """A control whose weights are functions of the features too: those of another control, read
    as coefficients,

        W(y, ξ, t) = Σ_ab C_ab(t) φ_a(y) φ_b(ξ),

    at the points of Ω_y. States have as many features as there are points; on more of them the
    solutions converge.

    **Arguments:**

    - `control`: gives C(t), an ordinary control for states of `space.modes` features.
    - `space`: φ and the points.
    """

    space: FunctionSpace

    def changed(self, block: PyTree, own: None) -> PyTree:
        kinds = AbstractOperator, AbstractConstraint
        return map_parts(block, kinds, lambda part, _: part.at_points(self.space))


@checked
class Sampled(AbstractMappedControl):
    """A control with one draw of its random operators in each interval.

    The draws of a block, of `Dropout` for example, are fixed over the interval: every stage
    of a step sees the same field, so the equation stays an ordinary one and schemes keep
    their order.

    **Arguments:** `control`, whose blocks hold random operators, and the `key` of the draws.
    """

    key: PRNGKeyArray

    continuous: ClassVar[bool] = False

    def own_intervals(self) -> Array:
        return jax.random.split(self.key, self.layers)

    def changed(self, block: PyTree, own: PRNGKeyArray) -> PyTree:
        return _with_key(block, own, own)


def _with_key(block: PyTree, key: PRNGKeyArray, common: PRNGKeyArray) -> PyTree:
    """Keys of their own for random operators, and the `common` one for those of one draw."""

    def draw(operator: AbstractRandomOperator, place: int) -> AbstractRandomOperator:
        own = jax.random.fold_in(key, place)
        inside = _with_key(operator.operator, own, common)
        return replace(operator, operator=inside, key=common if operator.one_draw else own)

    return map_parts(block, AbstractRandomOperator, draw)


@checked
class Sourced(AbstractMappedControl):
    """A control whose operators `A(u; f)` see a source f: `SourcedAttention`, `Injection`
    and `Relaxation` one on the domain of the state, `CrossAttention` one on a domain of its
    own.

    **Arguments:**

    - `control`: the control; another `Sourced` where there are sources of both kinds.
    - `source`: f, `[..., tokens, features]`, usually the state at depth 0, or the states of
      an encoder.
    - `domain`: the domain of f; `None` for that of the state.
    """

    source: State
    domain: TokenDomain | None = None

    def changed(self, block: PyTree, own: None) -> PyTree:
        return map_parts(
            block, AbstractSourcedOperator, lambda x, _: x.with_source(self.source, self.domain)
        )


def with_source(
    control: AbstractControl, source: State, domain: TokenDomain | None = None
) -> AbstractControl:
    """`Sourced(control, source, domain)` where an operator takes a source, else the control."""
    takes_source = parts(control, AbstractSourcedOperator)
    return Sourced(control, source, domain) if takes_source else control
