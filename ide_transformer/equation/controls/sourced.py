import jax
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..depth import Depth
from ..domain import TokenDomain
from ..operators import AbstractSourcedOperator
from .control import AbstractControl


class Sourced(AbstractControl):
    """A control whose operators `A(u; f)` see f: `SourcedAttention` and `Relaxation` one on
    the domain of the state, `CrossAttention` one on a domain of its own.

    **Arguments:**

    - `control`: the control; another `Sourced` where there are sources of both kinds.
    - `source`: f, `[..., tokens, features]`, usually the state at depth 0, or the states of
      an encoder.
    - `domain`: where f lives; `None` for the domain of the state.
    """

    control: AbstractControl
    source: Float[Array, "*batch tokens features"]
    domain: TokenDomain | None = None

    @property
    def continuous(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.control.continuous

    @property
    def depth_axes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.control.depth_axes

    @property
    def interval_length(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.control.interval_length

    @property
    def num_intervals(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.control.num_intervals

    def intervals(self) -> PyTree[Array]:
        return self.control.intervals()

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self._with_source(self.control.local(interval, s))

    def __call__(self, t: Depth) -> PyTree:
        return self._with_source(self.control(t))

    def tabulate(self, fractions: np.ndarray) -> "Sourced":
        return type(self)(self.control.tabulate(fractions), self.source, self.domain)

    def resample(self, num_intervals: int) -> "Sourced":
        return type(self)(self.control.resample(num_intervals), self.source, self.domain)

    def _with_source(self, block: PyTree) -> PyTree:
        return jax.tree.map(
            lambda x: x.with_source(self.source, self.domain) if _takes_source(x) else x,
            block,
            is_leaf=_takes_source,
        )


def with_source(
    control: AbstractControl,
    source: Float[Array, "*batch tokens features"],
    domain: TokenDomain | None = None,
) -> AbstractControl:
    """`Sourced(control, source, domain)` where an operator takes a source, else the control."""
    leaves = jax.tree.leaves(control, is_leaf=_takes_source)
    return Sourced(control, source, domain) if any(map(_takes_source, leaves)) else control


def _takes_source(x: PyTree) -> bool:
    return isinstance(x, AbstractSourcedOperator)
