import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PyTree

from ...equation import Depth
from ...errors import InputError
from ..base.scheme import AbstractScheme


class AdamsHistory(eqx.Module):
    """The fields of the last two steps, the lengths of these steps, and how many of them
    belong to the same smooth piece of the field."""

    fields: tuple[PyTree[Array], PyTree[Array]]
    lengths: tuple[Float[Array, ""], Float[Array, ""]]
    known: Int[Array, ""]


class AdamsBashforth(AbstractScheme):
    """The Adams–Bashforth method of two or three steps: the polynomial through the last
    fields is integrated over the step; for steps of one length

        u_{n+1} = u_n + h (3/2 F_n - 1/2 F_{n-1}),
        u_{n+1} = u_n + h (23/12 F_n - 16/12 F_{n-1} + 5/12 F_{n-2}).

    As many orders as steps, one evaluation a step. It starts, and starts again where the
    field jumps, with a step of Heun's method: on layers with one step each that is every
    step, so take it with a continuous control such as `PiecewiseLinear`. Reference: Hairer,
    Nørsett, Wanner, Solving Ordinary Differential Equations I, section III.5.

    **Arguments:**

    - `steps`: 2 or 3.
    """

    steps: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        if self.steps not in (2, 3):
            raise InputError(f"AdamsBashforth(steps={self.steps}): steps must be 2 or 3.")

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return self.steps

    def init(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> AdamsHistory:
        nothing = jax.tree.map(jnp.zeros_like, y0)
        length = jnp.asarray(t1 - t0)
        return AdamsHistory((nothing, nothing), (length, length), jnp.array(0))

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: AdamsHistory,
        made_jump: PyTree,
    ) -> tuple:
        h = jnp.asarray(t1 - t0)
        control = terms.contr(t0, t1)
        increment = terms.vf_prod(t0, y0, args, control)
        field = jax.tree.map(lambda k: k / h, increment)
        known = jnp.where(made_jump, 0, solver_state.known)
        before, earlier = solver_state.fields
        last, previous = solver_state.lengths

        def start(_):
            middle = jax.tree.map(jnp.add, y0, increment)
            end = terms.vf_prod(t1, middle, args, control)
            return jax.tree.map(lambda u, a, b: u + 0.5 * (a + b), y0, increment, end)

        def go_on(_):
            # Newton's form of the interpolation, integrated; the third term needs two
            # fields of the past.
            first = 0.5 * h * h / last
            second = h * h * (h / 3 + last / 2) / (last + previous)
            second = jnp.where((known > 1) & (self.steps == 3), second, 0)

            def advance(u, k, f, f1, f2):
                slope, slope_before = f - f1, (f1 - f2) / previous
                curvature = slope / last - slope_before
                return u + k + first * slope + second * curvature

            return jax.tree.map(advance, y0, increment, field, before, earlier)

        y1 = lax.cond(known == 0, start, go_on, None)
        y1 = jax.tree.map(lambda y, u: y.astype(u.dtype), y1, y0)
        history = AdamsHistory((field, before), (h, last), jnp.minimum(known + 1, 2))
        return y1, None, dict(y0=y0, y1=y1), history, diffrax.RESULTS.successful
