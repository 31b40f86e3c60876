from ...equation import AbstractConstraint, Depth, Free
from ..base.coefficients import Numbers, Positive, UnitInterval
from .momentum import AbstractMomentum, Kick, decay


class HeavyBall(AbstractMomentum):
    """Polyak's heavy ball by Lie–Trotter over a state and its velocity: for each operator
    in turn, at h = 1,

        v ← P(β v + γ A_i(u)),   u ← u + v.

    β and γ are learned, but for a β of 0, which stays 0. For shorter steps and the limit, see
    `Nesterov`. First order. Reference: Polyak, USSR Comput. Math. Math. Phys. 4 (1964); for
    Transformers, arXiv 2601.23236.

    **Arguments:**

    - `momentum`: β in [0, 1), a number, `[operators]` or `[layers, operators]`.
    - `gain`: γ > 0, likewise.
    - `normalization`: P.

    **Raises:** `InputError` for a coefficient out of range, or for another number of operators.
    """

    momentum: UnitInterval
    gain: Positive
    normalization: AbstractConstraint

    def __init__(
        self,
        momentum: Numbers = 0.9,
        gain: Numbers = 1.0,
        normalization: AbstractConstraint = Free(),
    ):
        self.momentum = UnitInterval(momentum, "momentum")
        self.gain = Positive(gain, "gain")
        self.normalization = normalization

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h, middle = t1 - t0, t0 + 0.5 * (t1 - t0)
        damping, strength = decay(self.momentum(middle, index), self.gain(middle, index), h)
        return Kick(damping, strength, 0.0)
