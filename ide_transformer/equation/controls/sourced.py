from typing import ClassVar

from jaxtyping import Array, PyTree

from ..domain import TokenDomain
from ..operators.sourced import AbstractSourcedOperator
from ..shapes import Depth, State
from ..tree import map_parts, parts
from .control import AbstractControl, AbstractWrappedControl


class Sourced(AbstractWrappedControl):
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

    configurable: ClassVar[bool] = False

    def local(self, interval: PyTree[Array], s: Depth) -> PyTree:
        return self._with_source(self.control.local(interval, s))

    def __call__(self, t: Depth) -> PyTree:
        return self._with_source(self.control(t))

    def _with_source(self, block: PyTree) -> PyTree:
        return map_parts(
            block, AbstractSourcedOperator, lambda x, _: x.with_source(self.source, self.domain)
        )


def with_source(
    control: AbstractControl, source: State, domain: TokenDomain | None = None
) -> AbstractControl:
    """`Sourced(control, source, domain)` where an operator takes a source, else the control."""
    takes_source = parts(control, AbstractSourcedOperator)
    return Sourced(control, source, domain) if takes_source else control
