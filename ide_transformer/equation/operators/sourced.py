"""The base class of operators that see a source at every depth."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp

from ...errors import InputError
from ..domain import TokenDomain
from ..shapes import State
from .operator import AbstractOperator


class AbstractSourcedOperator(AbstractOperator):
    """An operator `A(u; f)` of the state and of a source f, which is the same at all depths.

    The source is either the input of the equation, the state at depth 0, or a function on a
    domain of its own, such as the states of an encoder; an operator sees one of the two. The
    control `Sourced` puts f in; models do so by themselves.
    """

    source: State | None
    source_domain: TokenDomain | None

    # Whether f has a domain of its own, not that of the state.
    own_domain: ClassVar[bool] = False
    # The rest of the error where f is missing.
    missing: ClassVar[str] = (
        "has no source f; wrap the control: Equation(Sourced(control, u0), constraint, "
        "domain). Models do so themselves."
    )

    def with_source(
        self, source: State, domain: TokenDomain | None = None
    ) -> "AbstractSourcedOperator":
        """Put f into the operator; a source that it does not see changes nothing.

        **Arguments:**

        - `domain`: the domain of f; `None` for that of the state.
        """
        if self.own_domain != (domain is not None):
            return self
        return eqx.tree_at(
            lambda x: (x.source, x.source_domain),
            self,
            (source, domain),
            is_leaf=lambda x: x is None,
        )

    def given_source(self) -> State:
        """f.

        **Raises:** `InputError` where none was put in.
        """
        if self.source is None:
            raise InputError(f"{type(self).__name__} {self.missing}")
        return self.source

    def source_like(self, u: State) -> State:
        """f, for each token of the state, in its shape.

        **Raises:** `InputError` where none was put in, or it is of another shape.
        """
        f = self.given_source()
        if f.shape not in (u.shape, u.shape[-2:]):
            raise InputError(
                f"{type(self).__name__}: the source has shape {f.shape}, but the state has "
                f"{u.shape}."
            )
        return jnp.broadcast_to(f, u.shape)
