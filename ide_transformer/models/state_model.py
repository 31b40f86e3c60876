import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    TokenDomain,
    as_control,
    check_features,
    grid_of,
    lattice,
)
from ..errors import InputError
from .model import Discretization, Model


class StateModel(Model):
    """An equation alone, on a grid of tokens: `u(0) ↦ u(T)`.

    `model(u)` maps states `[..., tokens, features]` to states. It is a part of a larger model,
    such as `UShapedModel`.

    **Arguments:**

    - `domain`: a grid, as `TokenDomain.uniform`, `periodic` and `midpoint` make it. Where it
      begins does not matter.
    - `width`: features of the state.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.

    **Raises:** `InputError` for a domain that is no grid.
    """

    control: AbstractControl
    constraint: AbstractControl
    discretization: Discretization
    width: int = eqx.field(static=True)
    # The numbers that make the grid. Its points would count as weights.
    grid: tuple[int, ...] = eqx.field(static=True)
    spacing: tuple[float, ...] = eqx.field(static=True)
    period: tuple[float | None, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        domain: TokenDomain,
        width: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
    ):
        self.grid = grid_of("StateModel", domain)
        self.spacing, self.period, self.width = domain.steps, domain.period, width
        self.control = control
        self.constraint = as_control(constraint, control)
        self.discretization = discretization

    @property
    def features(self) -> int:
        return self.width

    @property
    def domain(self) -> TokenDomain:
        return lattice(self.grid, self.spacing, self.period)

    def with_domain(self, domain: TokenDomain) -> "StateModel":
        """Put the equation on another grid."""
        return StateModel(
            domain,
            self.width,
            control=self.control,
            constraint=self.constraint,
            discretization=self.discretization,
        )

    def embed(
        self,
        inputs: Float[ArrayLike, "*batch tokens features"],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        u, domain = jnp.asarray(inputs), self.domain
        check_features(self, u, self.width)
        if u.shape[-2:-1] != (domain.num_tokens,):
            raise InputError(
                f"StateModel: states of shape {u.shape} on a grid of {domain.num_tokens} "
                "tokens; give one for each, or model.with_domain(domain) for another grid."
            )
        return u, domain

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch tokens features"]:
        return u
