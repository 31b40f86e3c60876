"""Splits the error of a solve into parts of tokens, features, depth and splitting."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..arguments import PositiveInt, checked
from ..equation import Equation, State, TokenDomain
from ..errors import InputError
from ..integration import Mesh
from ..models import Field, FunctionInputs, Model, OperatorModel, is_built_as
from ..models.compiled import compiled_outputs
from ..solvers import Strang, inconsistent_scheme, splitting_of, with_sub_solver


# From points `[tokens, dimension]` to the values of functions, `[..., tokens]`.
Inputs: TypeAlias = Callable[[Float[Array, "tokens dimension"]], Any]

# A scheme with a negligible error in depth.
_EXACT = diffrax.Dopri8()
# Numbers of tokens at which operations are counted. They must stay below about 1,448, where
# attention becomes a loop, of which a compiler counts one turn.
_COUNTED = 256, 512, 1024


@dataclasses.dataclass(frozen=True)
class FunctionSolve:
    """A solve of functions: the model, the functions, and the number of points."""

    model: Model
    inputs: Inputs
    tokens: int

    @classmethod
    def of(cls, model: Model, inputs: Inputs, tokens: int | None) -> "FunctionSolve":
        """A solve that can be refined. Raises `InputError` for a model whose error does not
        come from its resolution, or whose operator on a grid has no values between points."""
        options = model.mesh.controller, model.compute_dtype, model.exit
        is_plain = all(x is None for x in options) and is_built_as(model, OperatorModel)
        if not is_plain or model.domain.dimension != 1:
            raise InputError(
                "error_budget: pass an OperatorModel in dimension 1, without adaptive steps, "
                "compute_dtype and exit."
            )
        if (other := inconsistent_scheme(model.solver)) is not None:
            name = type(other).__name__
            raise InputError(f"error_budget: {name} does not converge; use LieTrotter().")
        solve = cls(model, inputs, tokens or model.domain.num_tokens)
        domain = solve.domain
        # Outside the `try`, since such a failure is not due to query points.
        eqx.filter_eval_shape(compiled_outputs, model, solve._field(domain))
        try:
            queried = solve._field(domain.with_queries(domain.points))
            eqx.filter_eval_shape(compiled_outputs, model, queried)
        except InputError as error:
            raise InputError(f"error_budget: no values between the points: {error}") from None
        return solve

    @property
    def has_functions(self) -> bool:
        """Whether the width is a resolution."""
        return self.model.space is not None

    def described(self, resolution: str) -> str:
        """Describes a resolution, for example as "64 tokens" or "Strang, 8 steps"."""
        steps = self.model.layers * self.model.steps
        numbers = {
            "tokens": f"{self.tokens} tokens",
            "features": f"{self.model.features} features",
            "depth": f"{steps} steps",
        }
        scheme = type(splitting_of(self.model.solver)).__name__
        return numbers.get(resolution, f"{scheme}, {steps} steps")

    @property
    def splits(self) -> bool:
        return (
            splitting_of(self.model.solver) is not None
            and self.model.equation.num_operators > 1
        )

    @property
    def domain(self) -> TokenDomain:
        return cast(FunctionInputs, self.model.inputs).points_of(self.tokens)

    def outputs(self, domain: TokenDomain) -> Array:
        """The outputs at the points of a domain; integrals are over the solve's own points."""
        field = self._field(self.domain.with_queries(domain.points))
        values = compiled_outputs(self.model, field)
        axis = -1 if cast(FunctionInputs, self.model.inputs).channels is None else -2
        return lax.slice_in_dim(values, self.tokens, values.shape[axis], axis=axis)

    def _field(self, domain: TokenDomain) -> Field:
        return Field(self.inputs(domain.points), domain)

    @property
    def cost(self) -> float:
        """Floating-point operations of a solve, extrapolated by a parabola for more tokens than
        `_COUNTED`."""
        solution = self.model.solve(self.inputs(self.domain.points))
        evaluations = float(jnp.mean(solution.stats["field_evaluations"]))
        if self.tokens <= _COUNTED[-1]:
            return evaluations * self._operations
        counts = [self.on(Mesh(tokens=tokens))._operations for tokens in _COUNTED]
        return evaluations * float(np.polyval(np.polyfit(_COUNTED, counts, 2), self.tokens))

    @property
    def _operations(self) -> float:
        """Floating-point operations of the field at one depth."""
        ordinary = self.model.ordinary
        u0, _ = eqx.filter_eval_shape(self.model.embed, self.inputs(self.domain.points))
        equation = Equation(ordinary.control, ordinary.constraint, self.domain)
        return field_operations(equation, u0)

    def on(self, mesh: Mesh) -> "FunctionSolve":
        tokens = self.tokens if mesh.tokens is None else cast(int, mesh.tokens)
        return dataclasses.replace(self, model=self.model.on(mesh), tokens=tokens)

    def finer(self, resolution: str, factor: int) -> "FunctionSolve":
        """The solve with `factor` times the "tokens", "features" or steps in "depth"."""
        meshes = {
            "tokens": Mesh(tokens=factor * self.tokens),
            "features": Mesh(width=factor * self.model.features),
            "depth": Mesh(steps=factor * self.model.steps),
        }
        return self.on(meshes[resolution])

    def with_solver(self, solver: diffrax.AbstractSolver) -> "FunctionSolve":
        return dataclasses.replace(self, model=self.model.with_solver(solver))

    def with_exact_flows(self) -> "FunctionSolve":
        """The solve by the same splitting with exact flows."""
        return self.with_solver(with_sub_solver(self.model.solver, _EXACT))

    def exact(self) -> "FunctionSolve":
        """The solve that is exact in depth."""
        return self.finer("depth", 2).with_solver(_EXACT)

    def with_finer_splitting(self) -> "FunctionSolve":
        """The solve by `Strang`, or with twice the steps if its order is above 1."""
        splitting = splitting_of(self.model.solver)
        assert splitting is not None
        if splitting.splitting_order > 1:
            return self.finer("depth", 2)
        symmetric = Strang(splitting.sub_solver)
        return self.with_solver(eqx.tree_at(splitting_of, self.model.solver, symmetric))


def field_operations(equation: Equation, u0: State | jax.ShapeDtypeStruct) -> float:
    """Floating-point operations of the field at one depth, with one turn of each loop."""
    costs = jax.jit(lambda u: equation.vector_field(0.5, u, None)).lower(u0).cost_analysis()
    assert costs is not None
    return float(costs["flops"])


class ErrorPart(NamedTuple):
    """The error of one resolution. Errors are relative to the norm of the outputs.

    - `resolution`: "tokens", "features", "depth" or "splitting".
    - `size`: the norm of the error.
    - `share`: its component along the total error; the shares sum to the total.
    - `refinement`: the refined resolution.
    - `left`: the total error after the refinement.
    - `cost`: the factor by which the refinement increases operations.
    """

    resolution: str
    size: float
    share: float
    refinement: str
    left: float
    cost: float


class ErrorBudget(NamedTuple):
    """The error of a solve and its parts.

    - `total`: an estimate of `‖v - v*‖ / ‖v*‖` over points and samples, with exact outputs v*.
    - `parts`: the error of each resolution.
    """

    total: float
    parts: tuple[ErrorPart, ...]

    @property
    def cheapest(self) -> ErrorPart:
        """The part whose refinement removes the most error per additional cost."""

        def gain(part: ErrorPart) -> float:
            return (self.total - part.left) / (part.cost - 1) if part.cost > 1 else 0.0

        return max(self.parts, key=gain)


@checked
def error_budget(
    model: Model, inputs: Inputs, tokens: PositiveInt | None = None
) -> ErrorBudget:
    """The error of a solve, split into parts of tokens, features, depth and splitting.

    Tokens and features are refined twice, and the differences are extrapolated. Exact flows of
    the same splitting give the part of depth; the rest is the part of splitting, refined by
    `Strang` or shorter steps. Each resolution is refined alone, so the parts sum to the error
    if it is small. Cost counts floating-point operations.

    **Arguments:**

    - `model`: an `OperatorModel` with equal steps; with a `space` its width is a resolution.
    - `inputs`: from points `[tokens, dimension]` to the values of functions, `[..., tokens]`.
    - `tokens`: the number of points; default: the model's.

    **Raises:** `InputError` for other models, adaptive steps, a scheme that does not converge
    to the solution, and an operator that needs a regular grid, such as `Diffusion`.
    """
    solve = FunctionSolve.of(model, inputs, tokens)
    domain = solve.domain
    outputs = solve.outputs(domain)
    exact = solve.exact().outputs(domain)
    flows = solve.with_exact_flows().outputs(domain) if solve.splits else exact
    refined = refinements(solve)
    halved = {name: finer.outputs(domain) for name, finer in refined.items()}
    errors = {"depth": outputs - flows, "splitting": flows - exact}
    for name in halved.keys() - errors.keys():
        first = outputs - halved[name]
        second = halved[name] - solve.finer(name, 4).outputs(domain)
        ratio = jnp.linalg.norm(second) / jnp.linalg.norm(first)
        # 1/2 is order 1, slower than any rule here; rounding may exceed it.
        ratio = jnp.clip(jnp.nan_to_num(ratio, nan=0.0), 0.0, 0.5)
        errors[name] = first + second / (1 - ratio)
    errors = {name: errors[name] for name in refined}
    total_error = sum(errors.values())
    size = jnp.linalg.norm(outputs - total_error)
    total = jnp.linalg.norm(total_error)
    cost = solve.cost
    parts = []
    for name, error in errors.items():
        finer = refined[name]
        part = ErrorPart(
            name,
            size=float(jnp.linalg.norm(error) / size),
            share=float(jnp.vdot(error, total_error) / (total * size)),
            refinement=finer.described(name),
            left=float(jnp.linalg.norm(total_error - (outputs - halved[name])) / size),
            cost=finer.cost / cost,
        )
        parts.append(part)
    return ErrorBudget(float(total / size), tuple(parts))


def refinements(solve: FunctionSolve) -> dict[str, FunctionSolve]:
    """The solves with twice the tokens, features or steps, or with a finer splitting."""
    names = ("tokens", "features", "depth") if solve.has_functions else ("tokens", "depth")
    refined = {name: solve.finer(name, 2) for name in names}
    if solve.splits:
        refined["splitting"] = solve.with_finer_splitting()
    return refined
