"""Operators that see the input of the equation at every depth."""

from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float

from ...errors import InputError
from ..domain import TokenDomain
from .operator import AbstractOperator


if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractSourcedOperator(AbstractOperator):
    """An operator `A(u; f)` of the state and of a source f, which is the same at all depths:
    the input of the equation, the state at depth 0, or states on another domain, of which
    an operator sees the one or the other. The control `Sourced` puts f in; models do so by
    themselves."""

    source: AbstractVar[Float[Array, "*batch tokens features"] | None]

    def with_source(
        self, source: Float[Array, "*batch tokens features"], domain: TokenDomain | None = None
    ) -> "AbstractSourcedOperator":
        """The same operator that sees f; unchanged by a source that it does not see.

        **Arguments:**

        - `domain`: where f lives, if that is not the domain of the state.
        """
        if domain is not None:
            return self
        return eqx.tree_at(lambda x: x.source, self, source, is_leaf=lambda x: x is None)

    def given_source(self) -> Float[Array, "*batch tokens features"]:
        """f.

        **Raises:** `InputError` where none was put in.
        """
        if self.source is None:
            raise InputError(
                f"{type(self).__name__} has no source f; wrap the control: "
                "Equation(Sourced(control, u0), constraint, domain). Models do so themselves."
            )
        return self.source
