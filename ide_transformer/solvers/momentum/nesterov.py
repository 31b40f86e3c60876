from ...equation import AbstractConstraint, Depth, Free
from ..base.coefficients import Numbers, Positive, UnitInterval
from .momentum import AbstractMomentum, Kick, decay


class Nesterov(AbstractMomentum):
    """Nesterov's acceleration by Lie–Trotter over a state and its velocity: for each
    operator in turn, at h = 1,

        v ← P(β v + γ A_i(u + μ v)),   u ← u + v.

    β, γ and μ are learned, but for a β or μ of 0, which stays 0. Shorter steps use `β^h`,
    `γ (1 - β^h)/(1 - β)` and `μ h`, which makes it first order for

        u_t = k v,   v_t = -k r v + γ r/(1 - β) Σ_i A_i(u),   r = -log β,

    k the number of operators, where P is `Free`. Reference: YuriiFormer, arXiv 2601.23236,
    which takes for P a layer norm.

    **Arguments:**

    - `momentum`: β in [0, 1), a number, `[operators]` or `[layers, operators]`.
    - `lookahead`: μ in [0, 1), likewise.
    - `gain`: γ > 0, likewise.
    - `normalization`: P.

    **Raises:** `InputError` for a coefficient out of range, or for another number of operators.
    """

    momentum: UnitInterval
    lookahead: UnitInterval
    gain: Positive
    normalization: AbstractConstraint

    def __init__(
        self,
        momentum: Numbers = 0.9,
        lookahead: Numbers = 0.9,
        gain: Numbers = 1.0,
        normalization: AbstractConstraint = Free(),
    ):
        self.momentum = UnitInterval(momentum, "momentum")
        self.lookahead = UnitInterval(lookahead, "lookahead")
        self.gain = Positive(gain, "gain")
        self.normalization = normalization

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h, middle = t1 - t0, t0 + 0.5 * (t1 - t0)
        damping, strength = decay(self.momentum(middle, index), self.gain(middle, index), h)
        return Kick(damping, strength, h * self.lookahead(middle, index))
