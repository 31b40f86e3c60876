"""Inputs that come from the solution of another equation, or that are states themselves."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import ArrayLike, PRNGKeyArray, PyTree

from ..arguments import PositiveInt, checked
from ..equation import TokenDomain, check_features, grid_of, lattice
from ..errors import InputError
from .images import AbstractImageInputs, ImageInputs
from .model import Model
from .parts import AbstractInputs, Embedded
from .read_outs import States


@checked
class StageInputs(AbstractImageInputs):
    """Windows of the states of another equation, each on a grid of its own,

        u_i' = Σ_j A_ij(u_i; θ_i(t)) on Ω_i,   u_i(0) = E_i(u_{i-1}(T_{i-1})),

    the states at depth T as an image whose channels are the features. E_i restricts to a
    coarser grid of tokens, with more features; that is a convolutional vision Transformer (Wu
    et al., arXiv 2103.15808).

    **Arguments:**

    - `before`: the model of the equation before, whose outputs are its `States()`.
    - `windows`: E, for images of its grid and features.
    """

    before: Model[AbstractImageInputs, States]
    windows: ImageInputs
    image_shape: tuple[int, int, int] = eqx.field(static=True, init=False)

    def __post_init__(self):
        self.image_shape = self.before.inputs.image_shape

    def __check_init__(self):
        before = self.before
        built = self.windows.image_shape
        given = (*before.inputs.grid, before.features)
        learned = before.inputs.prefix_tokens
        if learned or built != given:
            raise InputError(
                f"StageInputs: the stage before gives {given[0]} by {given[1]} tokens of "
                f"{given[2]} features and {learned} learned ones, but the next one was built "
                f"for {built}; give it image_shape={given}, and class_token=True to the last "
                "stage only."
            )

    @property
    def features(self) -> int:
        return self.windows.features

    @property
    def domain(self) -> TokenDomain:
        return self.windows.domain

    @property
    def prefix_tokens(self) -> int:
        return self.windows.prefix_tokens

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        before = self.before
        return self.windows.grid_of((*before.inputs.grid_of(shape), before.features))

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        before_key, own_key = (None, None) if key is None else jax.random.split(key)
        solution = self.before.solve(inputs, key=before_key)
        states = self.before.outputs(solution.u1)
        grid = self.before.inputs.grid_of(jnp.shape(inputs))
        image = states.reshape(*states.shape[:-2], *grid, states.shape[-1])
        embedded = self.windows.embed(image, key=own_key)
        return embedded._replace(before=(solution,))


@checked
class GridInputs(AbstractInputs):
    """States `[..., tokens, width]` on a grid of tokens, as `TokenDomain.uniform`, `periodic`
    and `midpoint` make it. Where it begins does not matter."""

    # The numbers that make the grid. Its points would count as weights.
    numbers: tuple[int, ...] = eqx.field(static=True)
    spacing: tuple[float, ...] = eqx.field(static=True)
    period: tuple[float | None, ...] | None = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, domain: TokenDomain, width: PositiveInt):
        self.numbers = grid_of("GridInputs", domain)
        self.spacing = domain.steps
        self.period = domain.period
        self.width = width

    @property
    def features(self) -> int:
        return self.width

    @property
    def domain(self) -> TokenDomain:
        return lattice(self.numbers, self.spacing, self.period)

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        u = jnp.asarray(inputs)
        domain = self.domain
        check_features(self, u, self.width)
        if u.shape[-2:-1] != (domain.num_tokens,):
            raise InputError(
                f"GridInputs: states of shape {u.shape} on a grid of {domain.num_tokens} "
                "tokens; give one for each."
            )
        return Embedded(u, domain)
