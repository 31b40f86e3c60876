"""The error of a solve, split into those of tokens, features, depth and splitting."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..arguments import PositiveInt, checked
from ..models import Model
from .function_solve import FunctionSolve, Inputs


class ErrorPart(NamedTuple):
    """The error of one resolution, and what is left of the whole after its refinement.

    - `resolution`: "tokens", "features", "depth" or "splitting".
    - `size`: the norm of its error; of all parts over the norm of the outputs.
    - `share`: its component along the whole error; the shares add up to the whole. A negative
      one makes up for others.
    - `refinement`: what refines it.
    - `left`: the whole error after that.
    - `cost`: the operations of the refined solve over those of this one.
    """

    resolution: str
    size: float
    share: float
    refinement: str
    left: float
    cost: float


class ErrorBudget(NamedTuple):
    """The error of a solve and its parts.

    - `total`: an estimate of `‖v - v*‖ / ‖v*‖`, v the outputs and v* those of the equation
      itself, the norm over all points and samples.
    - `parts`: the error of each resolution.
    """

    total: float
    parts: tuple[ErrorPart, ...]

    @property
    def cheapest(self) -> ErrorPart:
        """The part whose refinement removes the most of the error for what it costs more."""
        return max(self.parts, key=lambda part: gain(self.total, part.left, part.cost))


def gain(total: float, left: float, cost: float) -> float:
    """The error that a refinement removes, over what it costs more; 0 where it costs no more,
    since then it is the same solve."""
    return (total - left) / (cost - 1) if cost > 1 else 0.0


@checked
def error_budget(
    model: Model, inputs: Inputs, tokens: PositiveInt | None = None
) -> ErrorBudget:
    """The error of a solve, and the parts of it that come from the points of tokens, from the
    points of features, from steps in depth and from the splitting of operators.

    Tokens and features are refined twice, and the differences extrapolated by the order that
    they show. Depth is what exact flows of the same splitting change, splitting what is then
    left to the exact solution; a splitting of first order is refined by `Strang`, any other by
    shorter steps. A scheme without a sub-solver has all of its error in depth. Each is refined
    with the others as they are, so that the parts add up to the error where it is small. Cost
    counts floating-point operations, of one evaluation of the field times the evaluations.

    **Arguments:**

    - `model`: an `OperatorModel` with equal steps; with a `space` its width is a resolution
      too.
    - `inputs`: the functions that it maps, from points `[tokens, dimension]` to values
      `[..., tokens]`.
    - `tokens`: the number of points; default: that of the model.

    **Raises:** `InputError` for a model of something else than functions, for adaptive steps,
    for a scheme that does not converge to the solution of the equation, and for an operator
    that needs points at equal distances, such as `Diffusion`.
    """
    solve = FunctionSolve.of(model, inputs, tokens)
    refined, domain = refinements(solve), solve.domain
    here = solve.outputs(domain)
    errors = _errors(solve, here, refined)
    whole = sum(errors.values())
    size, total = jnp.linalg.norm(here - whole), jnp.linalg.norm(whole)
    parts = []
    for name, error in errors.items():
        finer = refined[name]
        removed = here - finer.outputs(domain)
        own, share, left, cost = map(
            float,
            (
                jnp.linalg.norm(error) / size,
                jnp.vdot(error, whole) / (total * size),
                jnp.linalg.norm(whole - removed) / size,
                finer.cost / solve.cost,
            ),
        )
        parts.append(ErrorPart(name, own, share, finer.described(name), left, cost))
    return ErrorBudget(float(total / size), tuple(parts))


def refinements(solve: FunctionSolve) -> dict[str, FunctionSolve]:
    """Refine each resolution of a solve by itself: twice the tokens, the features or the steps,
    and a finer splitting."""
    names = ("tokens", "features", "depth") if solve.has_functions else ("tokens", "depth")
    refined = {name: solve.finer(name, 2) for name in names}
    if solve.splits:
        refined["splitting"] = solve.with_finer_splitting()
    return refined


def _errors(
    solve: FunctionSolve, here: Array, refined: dict[str, FunctionSolve]
) -> dict[str, Array]:
    """The error of each resolution that can be refined, in the outputs `here`."""
    domain = solve.domain
    exact = solve.exact().outputs(domain)
    flows = solve.with_exact_flows().outputs(domain) if solve.splits else exact
    depth = {"depth": here - flows, "splitting": flows - exact}
    return {
        name: depth[name] if name in depth else _extrapolated(here, solve, name)
        for name in refined
    }


def _extrapolated(here: Array, solve: FunctionSolve, resolution: str) -> Float[Array, "..."]:
    """The error of outputs, from what two refinements change: if they are of order p in the
    points, the second is 2^-p of the first, and so are those that would follow."""
    domain = solve.domain
    once, twice = (solve.finer(resolution, factor).outputs(domain) for factor in (2, 4))
    first, second = jnp.linalg.norm(here - once), jnp.linalg.norm(once - twice)
    # Slower than any rule here, and at rounding, what is left is unknown; so much is not added.
    ratio = jnp.clip(jnp.nan_to_num(second / first, nan=0.0), 0.0, 0.5)
    return (here - once) + (once - twice) / (1 - ratio)
