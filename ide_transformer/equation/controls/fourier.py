import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ...arguments import PositiveInt, checked
from ...errors import InputError
from ..shapes import Depth
from .control import IntervalLength
from .expansion import AbstractExpansion, check_terms
from .stack import MakeBlock, combine, stack_blocks


class Fourier(AbstractExpansion):
    """Weights that are periodic in depth,

        θ(t) = Θ_0 + Σ_{k≤K} (Θ_{2k-1} cos(2π k t/T) + Θ_{2k} sin(2π k t/T)).

    **Arguments:**

    - `coefficients`: Θ, a block whose arrays have a leading axis of length 2K + 1.
    - `num_intervals`: L ≥ 2K + 1, since steps of one interval cannot tell faster waves from
      slower ones.
    - `interval_length`: depth of one interval.
    """

    num_intervals: PositiveInt = eqx.field(static=True)
    interval_length: IntervalLength = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if self.terms % 2 == 0:
            raise InputError(
                f"Fourier: {self.terms} coefficients; it needs an odd number, one constant "
                "and a cosine and a sine for each wave."
            )
        _check_intervals(self.terms // 2, self.num_intervals)

    def basis(self, t: Depth) -> Float[Array, " terms"]:
        return _waves(jnp.asarray(t) / self.horizon, self.terms // 2)

    @classmethod
    @checked
    def build(
        cls,
        make_block: MakeBlock,
        num_intervals: PositiveInt,
        *,
        key: PRNGKeyArray,
        waves: int | None = None,
    ) -> "Fourier":
        """Draws one block at each of 2K + 1 equally spaced depths and interpolates, so that
        the weights have the size of those of ordinary layers.

        **Arguments:**

        - `waves`: K; by default as many as the intervals allow.
        """
        waves = (num_intervals - 1) // 2 if waves is None else waves
        _check_intervals(waves, num_intervals)
        terms = 2 * waves + 1
        check_terms("Fourier", "waves", terms)
        basis = _waves(jnp.asarray(np.arange(terms) / terms), waves).T
        drawn = stack_blocks(make_block, terms, key)
        return cls(combine(jnp.linalg.inv(basis), drawn), num_intervals)


def _check_intervals(waves: int, num_intervals: int) -> None:
    if waves < 0 or num_intervals < 2 * waves + 1:
        raise InputError(
            f"Fourier: waves={waves} need at least {2 * max(waves, 0) + 1} intervals to be "
            f"told apart, but num_intervals={num_intervals}; take from 0 to "
            f"{(num_intervals - 1) // 2} waves or more intervals."
        )


def _waves(x: Float[Array, "*points"], waves: int) -> Float[Array, "terms *points"]:
    angles = [2 * jnp.pi * k * x for k in range(1, waves + 1)]
    pairs = [f(angle) for angle in angles for f in (jnp.cos, jnp.sin)]
    return jnp.stack([jnp.ones_like(x), *pairs])
