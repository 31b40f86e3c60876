import jax.numpy as jnp

from ...equation import AbstractConstraint, Depth, Free
from ..base.coefficients import Numbers, Positive
from .momentum import AbstractMomentum, Kick


class PresymplecticEuler(AbstractMomentum):
    """Presymplectic Euler for a damped Hamiltonian system, kick, damp, then drift; for each
    operator in turn

        v ← P(σ (v + h A_i(u))),   u ← u + h v,   σ = exp(-[η(t + h) - η(t)]),

        η(t) = c_log log(1 + t) + c_lin t,

    c_log and c_lin learned. First order for `u_t = k v, v_t = -k η' v + Σ_i A_i(u)`, k the
    number of operators, where P is `Free`. Reference: SympFormer, arXiv 2603.16535, whose
    kinetic energy also depends on the state; here it is `|v|²/2`.

    **Arguments:**

    - `logarithmic`: c_log > 0, a number, `[operators]` or `[layers, operators]`.
    - `linear`: c_lin > 0, likewise.
    - `normalization`: P.

    **Raises:** `InputError` for a coefficient out of range, or for another number of operators.
    """

    logarithmic: Positive
    linear: Positive
    normalization: AbstractConstraint

    def __init__(
        self,
        logarithmic: Numbers = 3.0,
        linear: Numbers = 1e-4,
        normalization: AbstractConstraint = Free(),
    ):
        self.logarithmic = Positive(logarithmic, "logarithmic")
        self.linear = Positive(linear, "linear")
        self.normalization = normalization

    def kick(self, index: int, t0: Depth, t1: Depth) -> Kick:
        h, middle = t1 - t0, t0 + 0.5 * (t1 - t0)
        growth = self.logarithmic(middle, index) * (jnp.log1p(t1) - jnp.log1p(t0))
        damping = jnp.exp(-growth - self.linear(middle, index) * h)
        return Kick(damping, damping * h, 0.0)
