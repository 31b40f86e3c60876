"""The error of a solve, split into those of tokens, features, depth and splitting."""

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
from ..equation import Equation, TokenDomain
from ..errors import InputError
from ..integration import Mesh
from ..models import Field, FunctionInputs, Model, OperatorModel, is_built_as
from ..models.compiled import compiled_outputs
from ..solvers import Strang, inconsistent, splitting_of, with_sub_solver


# Functions at points `[tokens, dimension]`: what a model takes there, `[..., tokens]`.
Inputs: TypeAlias = Callable[[Float[Array, "tokens dimension"]], Any]

# A scheme whose error in depth is below that of anything that it is compared with.
_EXACT = diffrax.Dopri8()
# Numbers of tokens for which all operations are counted.
_COUNTED = 512, 1024, 2048


@dataclasses.dataclass(frozen=True)
class FunctionSolve:
    """A solve of functions: the model with its scheme, its steps and its width, the functions,
    and the number of points."""

    model: Model
    inputs: Inputs
    tokens: int

    @classmethod
    def of(cls, model: Model, inputs: Inputs, tokens: int | None) -> "FunctionSolve":
        """A solve that can be refined.

        **Raises:** `InputError` for a model whose error is not that of its resolution, or that
        has no solution between its points, as an operator on a grid has none.
        """
        own = cast(FunctionInputs, model.inputs)
        if not is_built_as(model, OperatorModel) or own.dimension != 1:
            raise InputError(
                f"error_budget: the inputs of the model are {type(own).__name__}; give an "
                "OperatorModel in dimension 1, whose points can be refined."
            )
        for option, value, without in (
            ("stepsize_controller", model.mesh.stepsize_controller, "on(Mesh(steps=1))"),
            ("compute_dtype", model.compute_dtype, "with_precision(None)"),
            ("exit", model.exit, "with_exit(None)"),
        ):
            if value is not None:
                raise InputError(
                    f"error_budget: the model has a {option}, whose error does not come from "
                    f"the resolution; take model.{without}."
                )
        if (other := inconsistent(model.mesh.scheme)) is not None:
            raise InputError(
                f"error_budget: with shorter steps {type(other).__name__} does not converge to "
                "the solution of u_t = Σ_i A_i(u), with which outputs are compared; take "
                "model.on(Mesh(solver=…)) with a scheme that does, for example LieTrotter()."
            )
        (points,) = (own.points,) if isinstance(own.points, int) else own.points
        solve = cls(model, inputs, points if tokens is None else tokens)
        domain = solve.domain
        # What fails here has nothing to do with other points.
        eqx.filter_eval_shape(compiled_outputs, model, solve._field(domain))
        try:
            also = solve._field(domain.with_queries(domain.points))
            eqx.filter_eval_shape(compiled_outputs, model, also)
        except InputError as error:
            raise InputError(
                "error_budget: solves with other points are compared at those of the model, as "
                f"query points that nothing else sees. This model has no such points: {error} "
                "Leave the operator out, or measure the loss of a run at other numbers of "
                "tokens with ide-transformer evaluate --mesh tokens=…."
            ) from None
        return solve

    @property
    def has_functions(self) -> bool:
        """Whether its width is a resolution."""
        return self.model.space is not None

    def described(self, resolution: str) -> str:
        """Describe a resolution in words, for example "64 tokens" or "Strang, 8 steps"."""
        steps = self.model.layers * self.model.steps
        numbers = {
            "tokens": f"{self.tokens} tokens",
            "features": f"{self.model.features} features",
            "depth": f"{steps} steps",
        }
        scheme = type(splitting_of(self._scheme)).__name__
        return numbers.get(resolution, f"{scheme}, {steps} steps")

    @property
    def splits(self) -> bool:
        """Whether its operators are solved one at a time."""
        return splitting_of(self._scheme) is not None and self.model.equation.num_operators > 1

    @property
    def _scheme(self) -> diffrax.AbstractSolver:
        return self.model.mesh.scheme

    @property
    def domain(self) -> TokenDomain:
        return cast(FunctionInputs, self.model.inputs).points_of(self.tokens)

    def outputs(self, domain: TokenDomain) -> Array:
        """The outputs at the points of a domain, with the integrals over its own points."""
        seen = self._field(self.domain.with_queries(domain.points))
        found = compiled_outputs(self.model, seen)
        axis = -1 if cast(FunctionInputs, self.model.inputs).channels is None else -2
        return lax.slice_in_dim(found, self.tokens, found.shape[axis], axis=axis)

    def _field(self, domain: TokenDomain) -> Field:
        return Field(self.inputs(domain.points), domain)

    @property
    def cost(self) -> float:
        """Floating-point operations of a solve: those of the field at one depth, times the
        number of evaluations. Of many tokens, where attention may be a loop of which a compiler
        counts one turn, those of the parabola through three smaller numbers of tokens."""
        solution = self.model.solve(self.inputs(self.domain.points))
        evaluations = float(jnp.mean(solution.stats["field_evaluations"]))
        if self.tokens <= _COUNTED[-1]:
            return evaluations * self._operations
        fewer = [self.on(Mesh(tokens=number))._operations for number in _COUNTED]
        return evaluations * float(np.polyval(np.polyfit(_COUNTED, fewer, 2), self.tokens))

    @property
    def _operations(self) -> float:
        """Floating-point operations of the field at one depth."""
        ordinary = self.model.ordinary
        u0, _ = eqx.filter_eval_shape(self.model.embed, self.inputs(self.domain.points))
        equation = Equation(ordinary.control, ordinary.constraint, self.domain)
        found = jax.jit(lambda u: equation.vector_field(0.5, u, None)).lower(u0).cost_analysis()
        assert found is not None
        return float(found["flops"])

    def on(self, mesh: Mesh) -> "FunctionSolve":
        """Solve the same functions on another mesh."""
        tokens = self.tokens if mesh.tokens is None else cast(int, mesh.tokens)
        return dataclasses.replace(self, model=self.model.on(mesh), tokens=tokens)

    def finer(self, resolution: str, factor: int) -> "FunctionSolve":
        """The solve with so many times the "tokens", "features" or steps in "depth"."""
        meshes = {
            "tokens": Mesh(tokens=factor * self.tokens),
            "features": Mesh(width=factor * self.model.features),
            "depth": Mesh(steps=factor * self.model.steps),
        }
        return self.on(meshes[resolution])

    def with_exact_flows(self) -> "FunctionSolve":
        """Solve by the same splitting of exact flows; for a solve that splits."""
        return self.on(Mesh(solver=with_sub_solver(self._scheme, _EXACT)))

    def exact(self) -> "FunctionSolve":
        """The solution of the equation in depth, at these tokens and features."""
        return self.finer("depth", 2).on(Mesh(solver=_EXACT))

    def with_finer_splitting(self) -> "FunctionSolve":
        """The symmetric splitting with the same sub-solver in the place of one of first order;
        others with twice the steps. Of a solve that splits."""
        splitting = splitting_of(self._scheme)
        assert splitting is not None
        if splitting.splitting_order > 1:
            return self.finer("depth", 2)
        symmetric = Strang(splitting.sub_solver)
        return self.on(Mesh(solver=eqx.tree_at(splitting_of, self._scheme, symmetric)))


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
    domain = solve.domain
    here = solve.outputs(domain)
    exact = solve.exact().outputs(domain)
    flows = solve.with_exact_flows().outputs(domain) if solve.splits else exact
    refined = refinements(solve)
    once = {name: finer.outputs(domain) for name, finer in refined.items()}
    errors = {"depth": here - flows, "splitting": flows - exact}
    for name in once.keys() - errors.keys():
        first = here - once[name]
        second = once[name] - solve.finer(name, 4).outputs(domain)
        ratio = jnp.linalg.norm(second) / jnp.linalg.norm(first)
        # Slower than any rule here, and at rounding, what is left is unknown; so much is not
        # added.
        ratio = jnp.clip(jnp.nan_to_num(ratio, nan=0.0), 0.0, 0.5)
        errors[name] = first + second / (1 - ratio)
    errors = {name: errors[name] for name in refined}
    whole = sum(errors.values())
    size = jnp.linalg.norm(here - whole)
    total = jnp.linalg.norm(whole)
    parts = []
    for name, error in errors.items():
        finer = refined[name]
        part = ErrorPart(
            name,
            size=float(jnp.linalg.norm(error) / size),
            share=float(jnp.vdot(error, whole) / (total * size)),
            refinement=finer.described(name),
            left=float(jnp.linalg.norm(whole - (here - once[name])) / size),
            cost=finer.cost / solve.cost,
        )
        parts.append(part)
    return ErrorBudget(float(total / size), tuple(parts))


def refinements(solve: FunctionSolve) -> dict[str, FunctionSolve]:
    """Refine each resolution of a solve by itself: twice the tokens, the features or the steps,
    and a finer splitting."""
    names = ("tokens", "features", "depth") if solve.has_functions else ("tokens", "depth")
    refined = {name: solve.finer(name, 2) for name in names}
    if solve.splits:
        refined["splitting"] = solve.with_finer_splitting()
    return refined
