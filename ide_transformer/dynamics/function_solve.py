"""A model at one resolution of tokens, features and depth."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import diffrax
import equinox as eqx
import jax
from jax import lax
from jaxtyping import Array, Float

from ..equation import Equation, TokenDomain
from ..errors import InputError
from ..models import Field, FunctionInputs, Mesh, Model, OperatorModel, is_built_as
from ..solvers import Strang, inconsistent, splitting_of, with_sub_solver
from .meshes import field_evaluations, outputs_of


# Functions at points `[tokens, dimension]`: what a model takes there, `[..., tokens]`.
Inputs: TypeAlias = Callable[[Float[Array, "tokens dimension"]], Any]

# A scheme whose error in depth is below that of anything that it is compared with.
_EXACT = diffrax.Dopri8()


@dataclasses.dataclass(frozen=True)
class FunctionSolve:
    """A model that solves for functions of tokens, at so many points.

    - `model`: with its scheme, its steps and its width.
    - `inputs`: the functions.
    - `tokens`: the number of points.
    """

    model: Model
    inputs: Inputs
    tokens: int

    @classmethod
    def of(cls, model: Model, inputs: Inputs, tokens: int | None) -> "FunctionSolve":
        """A solve that can be refined.

        **Raises:** `InputError` for a model whose error is not that of its resolution, or that
        has no solution between its points, as an operator on a grid has none.
        """
        if not is_built_as(model, OperatorModel):
            raise InputError(
                f"error_budget: a model of {type(model.inputs).__name__} maps no functions of "
                "a coordinate, whose points could be refined; give an OperatorModel."
            )
        own: Any = model.inputs
        if own.dimension != 1:
            raise InputError(
                f"error_budget: the model is for functions in dimension {own.dimension}; it "
                "measures those of one coordinate."
            )
        if model.discretization.stepsize_controller is not None:
            raise InputError(
                "error_budget: the model has adaptive steps, whose error is that of their "
                "tolerance; give it a scheme with equal ones by with_solver."
            )
        for option in ("compute_dtype", "exit"):
            value = getattr(model.discretization, option)
            if value is not None:
                raise InputError(
                    f"error_budget: the model has {option}={value}, whose error is none of the "
                    f"resolution; drop it by with_options({option}=None)."
                )
        other = inconsistent(model.discretization.solver)
        if other is not None:
            raise InputError(
                f"error_budget: with shorter steps {type(other).__name__} does not come "
                "closer to the solution of u_t = Σ_i A_i(u), with which outputs are compared; "
                "give the model a scheme that does by with_solver, for example LieTrotter."
            )
        (points,) = (own.points,) if isinstance(own.points, int) else own.points
        solve = cls(model, inputs, points if tokens is None else tokens)
        domain = solve.domain
        # What fails here has nothing to do with other points.
        eqx.filter_eval_shape(outputs_of, model, solve._field(domain))
        try:
            also = solve._field(domain.with_queries(domain.points))
            eqx.filter_eval_shape(outputs_of, model, also)
        except InputError as error:
            raise InputError(
                "error_budget: solves with other points are compared at those of the model, "
                "where they have to see the function without being seen; this model cannot do "
                f"that: {error} Leave the operator out, or measure the loss of a run at other "
                "numbers of tokens by scripts/evaluate.py --mesh tokens=…."
            ) from None
        return solve

    @property
    def has_functions(self) -> bool:
        """Whether its width is a resolution."""
        return self.model.space is not None

    def described(self, resolution: str) -> str:
        """Describe a resolution in words, for example "64 tokens" or "Strang, 8 steps"."""
        numbers = {
            "tokens": f"{self.tokens} tokens",
            "features": f"{self.model.features} features",
            "depth": f"{self.steps} steps",
        }
        scheme = type(splitting_of(self._scheme)).__name__
        return numbers.get(resolution, f"{scheme}, {self.steps} steps")

    @property
    def splits(self) -> bool:
        """Whether its operators are solved one at a time."""
        return splitting_of(self._scheme) is not None and self.model.equation.num_operators > 1

    @property
    def _scheme(self) -> diffrax.AbstractSolver:
        return self.model.discretization.solver

    @property
    def _inputs(self) -> FunctionInputs:
        inputs = self.model.inputs
        assert isinstance(inputs, FunctionInputs)
        return inputs

    @property
    def domain(self) -> TokenDomain:
        return self._inputs.points_of(self.tokens)

    @property
    def steps(self) -> int:
        """The steps in depth."""
        return self.model.control.num_intervals * self.model.discretization.steps_per_interval

    def outputs(self, domain: TokenDomain) -> Array:
        """The outputs at the points of a domain, with the integrals over its own points."""
        seen = self._field(self.domain.with_queries(domain.points))
        found = outputs_of(self.model, seen)
        axis = -1 if self._inputs.channels is None else -2
        return lax.slice_in_dim(found, self.tokens, found.shape[axis], axis=axis)

    def _field(self, domain: TokenDomain) -> Field:
        return Field(self.inputs(domain.points), domain)

    @property
    def cost(self) -> float:
        """Floating-point operations of a solve: those of the field at one depth, times the
        number of evaluations."""
        inputs, ordinary = self.inputs(self.domain.points), self.model.ordinary
        u0, _ = eqx.filter_eval_shape(self.model.embed, inputs)
        equation = Equation(ordinary.control, ordinary.constraint, self.domain)
        found = jax.jit(lambda u: equation.vector_field(0.5, u, None)).lower(u0).cost_analysis()
        assert found is not None
        return float(found["flops"]) * float(field_evaluations(self.model, inputs))

    def on(self, mesh: Mesh) -> "FunctionSolve":
        """Solve the same functions on another mesh."""
        tokens = self.tokens if mesh.tokens is None else mesh.tokens
        assert isinstance(tokens, int)
        return dataclasses.replace(self, model=self.model.on(mesh), tokens=tokens)

    def finer(self, resolution: str, factor: int) -> "FunctionSolve":
        """The solve with so many times the "tokens", "features" or steps in "depth"."""
        steps = self.model.discretization.steps_per_interval
        meshes = {
            "tokens": Mesh(tokens=factor * self.tokens),
            "features": Mesh(width=factor * self.model.features),
            "depth": Mesh(steps_per_interval=factor * steps),
        }
        return self.on(meshes[resolution])

    def with_exact_flows(self) -> "FunctionSolve":
        """Solve by the same splitting of exact flows; for a solve that splits."""
        return self._with(with_sub_solver(self._scheme, _EXACT), 1)

    def exact(self) -> "FunctionSolve":
        """The solution of the equation in depth, at these tokens and features."""
        return self._with(_EXACT, 2)

    def with_finer_splitting(self) -> "FunctionSolve":
        """The symmetric splitting with the same sub-solver in the place of one of first order;
        others with twice the steps. Of a solve that splits."""
        splitting = splitting_of(self._scheme)
        assert splitting is not None
        if splitting.splitting_order > 1:
            return self.finer("depth", 2)
        symmetric = Strang(splitting.sub_solver)
        return self._with(eqx.tree_at(splitting_of, self._scheme, symmetric), 1)

    def _with(self, scheme: diffrax.AbstractSolver, factor: int) -> "FunctionSolve":
        steps = factor * self.model.discretization.steps_per_interval
        return self.on(Mesh(solver=scheme, steps_per_interval=steps))
