"""`Model`: inputs, an equation and a read-out."""

import dataclasses
import functools as ft
import inspect
import math
import weakref
from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast, get_args

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, PRNGKeyArray, PyTree

from ..arguments import checked
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractOperator,
    Dropout,
    Equation,
    FeatureDomain,
    Functional,
    FunctionSpace,
    Nodal,
    Rated,
    Sampled,
    State,
    TokenDomain,
    as_control,
    contents,
    count_weights,
    listing,
    low_precision,
    map_parts,
    on_devices,
    parts,
    spell,
    spell_options,
    with_source,
)
from ..equation.domain import by_samples
from ..errors import InputError
from ..integration import AbstractExit, AbstractGradient, Mesh, Recompute, Solution
from ..integration.mesh import check_steps
from ..integration.solve import solve_on
from ..memory import check_bytes
from ..solvers import LieTrotter, check_start, schemes_of, with_key
from .parts import AbstractInputs, AbstractReadOut, Embedded, InputArrays, Timed


Inputs = TypeVar("Inputs", bound=AbstractInputs, covariant=True)
ReadOut = TypeVar("ReadOut", bound=AbstractReadOut, covariant=True)
Result = TypeVar("Result")
Dtype: TypeAlias = Literal["bfloat16", "float16", "float32", "float64"]
# Fields of a mesh that belong to the parts of a model, not to its steps.
_PART_FIELDS = {"layers", "horizon", "tokens", "width"}


def _constraint(x: AbstractConstraint | AbstractControl) -> AbstractControl:
    # For the type checker; `__post_init__` makes it a control.
    return cast(AbstractControl, x)


@checked
class Model(eqx.Module, Generic[Inputs, ReadOut]):
    """A map from inputs to outputs through the solution of an equation,

        u(0) = E(inputs),   u_t = Σ_i A_i(u; θ(t)) on the set S(t),   outputs = R(u(T)).

    `model(inputs)` maps one sample, or any leading batch axes. `LanguageModel`,
    `ImageClassifier`, `OperatorModel` and others build models.

    Inputs may contain models of earlier equations, such as stages. Then `on` changes all
    equations, and a solution counts the steps, evaluations and failures of all. The states and
    the exit belong to the last equation.

    With a `space` the weights are coefficients of functions of the features, see
    `FunctionSpace`, and `model.on(Mesh(width=d))` evaluates them at d points of Ω_y. With
    `Nodal()` and d equal to the number of modes it is the model without a space.

    **Arguments:**

    - `inputs`, `read_out`: E and R.
    - `control`, `constraint`: θ and S, see `Equation`.
    - `solver`: the scheme; it may have weights. `LieTrotter()` is the standard Transformer.
    - `mesh`: the steps of the scheme. `model.on(mesh)` changes layers, horizon, tokens, width.
    - `space`: see above; `None` for ordinary weights.
    - `gradient`: the gradient mode, see `solve`.
    - `compute_dtype`: dtype of matrix products in operators, for example "bfloat16"; weights
      and state keep their dtype. `None` for the dtype of the weights.
    - `exit`: when tokens stop before the end, see `AbstractExit`.
    """

    inputs: Inputs
    control: AbstractControl
    constraint: AbstractControl = eqx.field(converter=_constraint)
    # Weights are stored in the order of these fields.
    solver: diffrax.AbstractSolver = eqx.field(kw_only=True, default=LieTrotter())
    mesh: Mesh = eqx.field(kw_only=True, default=Mesh())
    read_out: ReadOut
    space: FunctionSpace | None = None
    gradient: AbstractGradient = Recompute()
    compute_dtype: Dtype | None = eqx.field(static=True, default=None)
    exit: AbstractExit | None = None

    def __post_init__(self):
        self.constraint = as_control(self.constraint, self.control)
        if part_fields := self.mesh.options.keys() & _PART_FIELDS:
            names = ", ".join(sorted(part_fields))
            raise InputError(f"Model: mesh sets {names}; use Model(…).on(mesh).")
        self.mesh = self.mesh.with_defaults

    def __check_init__(self):
        self.read_out.check(self.inputs)
        features = self.inputs.features
        if self.space is not None and self.space.modes != features:
            raise InputError(f"Model: space has {self.space.modes} modes, expected {features}.")
        if self.exit is not None and self.mesh.controller is not None:
            raise InputError("Model: an exit needs equal steps; drop the stepsize_controller.")

    def __repr__(self) -> str:
        entries = {"parameters": count_weights(self)}
        if len(self.equations) > 1:
            for i, model in enumerate(self.equations):
                operators = parts(model.control, AbstractOperator)
                texts = (
                    f"{type(model.inputs).__name__}, {model.features} features",
                    contents(model.control, model.constraint)["control"],
                    ", ".join(type(x).__name__ for x in operators),
                    _describe_scheme(model),
                    type(model.read_out).__name__,
                )
                entries[f"equation {i}"] = "; ".join(texts)
        else:
            entries["inputs"] = spell(self.inputs)
            entries |= contents(self.control, self.constraint)
            entries["scheme"] = _describe_scheme(self)
            entries["read-out"] = spell(self.read_out)
        return listing(self, entries)

    @property
    def features(self) -> int:
        """The width of the state."""
        return self.inputs.features if self.space is None else self.space.domain.features

    @property
    def layers(self) -> int:
        """The number of intervals of the control."""
        return self.control.layers

    @property
    def steps(self) -> int:
        """Equal steps in each layer; 1 for adaptive steps."""
        return self.mesh.steps or 1

    @property
    def domain(self) -> TokenDomain:
        """The domain of a full-sized input."""
        return self.inputs.domain

    @property
    def ordinary(self) -> "Model[Inputs, ReadOut]":
        """The model with its weights at the points of its `space`; without one, the model."""
        space = self.space
        if space is None:
            return self
        return dataclasses.replace(
            self,
            inputs=self.inputs.at_points(space),
            control=Functional(self.control, space),
            constraint=Functional(self.constraint, space),
            read_out=self.read_out.at_points(space, self.inputs),
            space=None,
        )

    @property
    def random(self) -> bool:
        """Whether inputs, operators or schemes draw random numbers, such as dropout."""
        random_scheme = any(scheme.random for scheme in schemes_of(self))
        return bool(parts(self, Dropout)) or self.inputs.random or random_scheme

    @property
    def equations(self) -> "tuple[Model, ...]":
        """The models of all equations in the order of their solution, this one last."""
        return (*(x for model in parts(self.inputs, Model) for x in model.equations), self)

    @property
    def rounded_control(self) -> AbstractControl:
        """The control with matrices in `compute_dtype`."""
        if self.compute_dtype is None:
            return self.control
        return low_precision(self.control, self.compute_dtype)

    @property
    def equation(self) -> Equation:
        """The equation on the domain of a full-sized input."""
        model = self.ordinary
        return Equation(model.control, model.constraint, model.domain)

    def each_equation(self, change: "Callable[[Model], Model]") -> "Model[Inputs, ReadOut]":
        """Applies `change` to the model of each equation, to this one last."""
        inputs = map_parts(self.inputs, Model, lambda x, _: x.each_equation(change))
        return change(self.with_inputs(inputs))

    def with_inputs(self, inputs: AbstractInputs) -> "Model[Any, ReadOut]":
        """The model with other inputs."""
        return dataclasses.replace(self, inputs=inputs)

    @checked
    def with_exit(self, exit: AbstractExit | None) -> "Model[Inputs, ReadOut]":
        """The model whose last equation stops tokens early, see `AbstractExit`; `None` for no
        exit. With an exit `stats["field_evaluations"]` of a solution is `[..., tokens]`."""
        return dataclasses.replace(self, exit=exit)

    @checked
    def with_gradient(self, gradient: AbstractGradient) -> "Model[Inputs, ReadOut]":
        """The model with another gradient mode, see `solve`, in all equations."""
        return self.each_equation(lambda model: dataclasses.replace(model, gradient=gradient))

    @checked
    def with_precision(self, compute_dtype: Dtype | None) -> "Model[Inputs, ReadOut]":
        """The model with another `compute_dtype` in all equations."""
        return self.each_equation(lambda x: dataclasses.replace(x, compute_dtype=compute_dtype))

    @checked
    def with_solver(self, solver: diffrax.AbstractSolver) -> "Model[Inputs, ReadOut]":
        """The model with another scheme in all equations, on the same mesh. The old scheme's
        weights are lost, unless `solver` wraps it: `AlgebraicallyReversible(model.solver)`."""
        return self.each_equation(lambda model: dataclasses.replace(model, solver=solver))

    @checked
    def on(self, mesh: Mesh) -> "Model[Inputs, ReadOut]":
        """The model with the same weights and scheme on another mesh. A model trained for
        several meshes, see `training.schedule`, converges with more steps.

        **Raises:** `InputError` for a mesh that does not fit or is too fine for the memory.
        """
        model: Model = self
        horizon = mesh.horizon
        if horizon is not None:
            model = model._change_controls(lambda control: control.extend(horizon))
        if mesh.width is not None:
            if self.space is None:
                raise InputError(f"width={mesh.width}: use functional(model).on(mesh).")
            check_bytes(f"width={mesh.width}", 4 * mesh.width * self.space.modes)
            space = self.space.with_points(mesh.width)
            model = dataclasses.replace(model, space=space)
        layers = mesh.layers
        if layers is not None:
            model = model._change_controls(lambda control: _resample(control, layers))
        tokens = mesh.tokens
        if tokens is not None:
            num_tokens = math.prod(tokens) if isinstance(tokens, tuple) else tokens
            check_bytes(f"tokens={tokens}", 4 * num_tokens * model.features)
            model = model.with_inputs(model.inputs.with_tokens(tokens))
        if not mesh.options.keys() - _PART_FIELDS:
            return model

        def with_steps(part: Model) -> Model:
            steps = mesh.over(part.mesh)
            check_steps({"layers": part.layers, "steps": steps.steps or 1})
            return dataclasses.replace(part, mesh=steps)

        return model.each_equation(with_steps)

    def _change_controls(self, change: Callable[[AbstractControl], AbstractControl]) -> "Model":
        return self.each_equation(
            lambda model: dataclasses.replace(
                model, control=change(model.control), constraint=change(model.constraint)
            )
        )

    def embed(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> tuple[State, TokenDomain]:
        """The state at depth 0 and its domain."""
        embedded = self.ordinary.inputs.embed(inputs, key=key)
        return embedded.u0, embedded.domain

    def initial_value_problem(self, inputs: PyTree[ArrayLike]) -> tuple[Equation, State]:
        """The equation for these inputs, with its sources, and the state at depth 0."""
        model = self.ordinary
        embedded = model.inputs.embed(inputs)
        return model._equation(model.control, embedded), embedded.u0

    def outputs(self, u: State, inputs: PyTree[ArrayLike] | None = None) -> PyTree[Array]:
        """The outputs for a state at depth T. `inputs` are the inputs of the solve, for a
        read-out that integrates over their points; by default the points of a full-sized
        input."""
        model = self.ordinary
        return model.read_out(u, model.inputs.with_domain_of(inputs))

    @checked
    def solve(
        self,
        inputs: InputArrays,
        *,
        key: PRNGKeyArray | None = None,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    ) -> Solution:
        """The solution from the embedded inputs. A failed solve does not raise; see its
        `result`. `key` draws the dropout; `None` for no dropout. For `saveat` see `solve`.
        Samples with their own points are solved one by one, with their own adaptive steps."""
        model = self.ordinary
        solve = ft.partial(model._solve_batch, saveat=saveat)
        times_differ = isinstance(inputs, Timed) and np.ndim(inputs.duration) > 0
        points_differ = any(domain.of_samples for domain in parts(inputs, TokenDomain))
        if self.mesh.steps_for == "batch" and not (times_differ or points_differ):
            return solve(inputs, key)
        if saveat.dense:
            raise InputError(
                "solve: SaveAt(dense=True) needs samples that share steps, times and points; "
                "pass SaveAt(ts=…)."
            )
        u0, _ = eqx.filter_eval_shape(model.embed, inputs)
        return _solve_samples(solve, inputs, key, u0.ndim - 2)

    def _solve_batch(
        self, inputs: PyTree[ArrayLike], key: PRNGKeyArray | None, *, saveat: diffrax.SaveAt
    ) -> Solution:
        control = self.rounded_control
        solver = self.solver
        embed_key = None
        if key is not None:
            embed_key, depth_key, _ = jax.random.split(key, 3)
            if parts(control, Dropout):
                control = Sampled(control, depth_key)
            solver = with_key(solver, depth_key)
        embedded = self.inputs.embed(inputs, key=embed_key)
        embedded = embedded._replace(u0=on_devices(embedded.u0))
        check_start(solver, embedded.start)
        solution = solve_on(
            self.mesh,
            solver,
            self._equation(control, embedded),
            embedded.u0,
            gradient=self.gradient,
            saveat=saveat,
            args=embedded.start,
            throw=False,
            exit=self.exit,
            read_out=eqx.Partial(self.outputs, inputs=inputs),
        )
        for earlier in reversed(embedded.before):
            solution = _add_statistics(earlier, solution)
        return solution

    def _equation(self, control: AbstractControl, embedded: Embedded) -> Equation:
        """The equation, with the initial state and an encoder's states as sources."""
        if embedded.rate is not None:
            control = Rated(control, embedded.rate)
        control = with_source(control, embedded.u0)
        encoded = embedded.encoded
        if encoded is not None:
            control = with_source(control, encoded.states, encoded.domain)
        return Equation(control, self.constraint, embedded.domain)

    def __call__(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> PyTree[Array]:
        """The outputs for one sample or a batch; `key` draws the dropout."""
        # With a space, compute the matrices once for solve and outputs.
        model = self.ordinary
        outputs = model.outputs(model.solve(inputs, key=key).u1, inputs)
        return model.read_out.shaped(outputs, inputs)


@checked
def functional(model: Model[Inputs, ReadOut]) -> Model[Inputs, ReadOut]:
    """The model with weights as functions of its features, constant on parts (`Nodal`)."""
    if model.space is not None:
        return model
    space = FunctionSpace(Nodal(), model.features, FeatureDomain(model.features))
    return dataclasses.replace(model, space=space)


def once_for_each(function: Callable[..., Result]) -> Callable[..., Result]:
    """A decorator that caches results by arguments, as long as the first argument lives."""
    results: dict[Any, Result] = {}

    @ft.wraps(function)
    def cached(owner: Any, *arguments: Any) -> Result:
        key = id(owner), *arguments
        if key not in results:
            results[key] = function(owner, *arguments)
            weakref.finalize(owner, results.pop, key, None).atexit = False
        return results[key]

    return cached


def is_built_as(model: Model, build: Callable[..., Model]) -> bool:
    """Whether a model has the classes of inputs and read-out that `build` makes."""
    inputs, read_out = kinds_of(build)
    return isinstance(model.inputs, inputs) and isinstance(model.read_out, read_out)


def kinds_of(build: Callable[..., Model]) -> tuple[type, type]:
    """The classes of inputs and read-out in the return annotation of `build`."""
    returned = inspect.signature(build, eval_str=True).return_annotation
    return get_args(returned) or (AbstractInputs, AbstractReadOut)


def _describe_scheme(model: Model) -> str:
    return f"{spell(model.solver)}, {spell_options(model.mesh)}"


def _resample(control: AbstractControl, layers: int) -> AbstractControl:
    check_steps({"layers": layers})
    data = jax.tree.leaves(eqx.filter_eval_shape(lambda x: x.intervals(), control))
    size = sum(x.size * x.dtype.itemsize for x in data if hasattr(x, "dtype"))
    check_bytes(f"layers={layers}", layers * size / control.layers)
    resampled = control.resample(layers)
    if resampled.layers != layers:
        name = type(control).__name__
        raise InputError(f"{name}.resample({layers}) returned {resampled.layers} layers.")
    return resampled


def _solve_samples(
    solve: Callable, inputs: PyTree[ArrayLike], key: PRNGKeyArray | None, axes: int
) -> Solution:
    """Solve each sample by itself; the states have `axes` batch axes."""
    if not axes:
        return solve(inputs, key)
    inputs = jax.tree.map(jnp.asarray, inputs, is_leaf=lambda x: isinstance(x, list))
    # A number, such as one duration, belongs to all samples.
    batched = jax.tree.map(lambda x, y: y and x.ndim > 0, inputs, by_samples(inputs, axes))
    num_samples = jax.tree.leaves(eqx.filter(inputs, batched))[0].shape[0]
    keys = None if key is None else jax.random.split(key, num_samples)
    in_axes = jax.tree.map(lambda x: 0 if x else None, batched), None if key is None else 0
    solve_sample = jax.vmap(lambda x, k: _solve_samples(solve, x, k, axes - 1), in_axes)
    solution = solve_sample(inputs, keys)
    us = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), solution.us)
    return eqx.tree_at(lambda s: (s.ts, s.us), solution, (solution.ts[0], us))


def _add_statistics(earlier: Solution, solution: Solution) -> Solution:
    """Adds the statistics and the failure of an earlier solution to `solution`."""
    result, failed_at = jax.tree.map(
        lambda before, after: jnp.where(earlier.succeeded, after, before),
        (earlier.result, earlier.failed_at),
        (solution.result, solution.failed_at),
    )
    stats = {}
    for name, after in solution.stats.items():
        before = earlier.stats[name]
        # The mean over axes that `solution` does not have.
        if jnp.shape(before) not in ((), jnp.shape(after)):
            before = jnp.mean(jnp.asarray(before))
        stats[name] = jnp.asarray(after) + before
    residual = "constraint_residual"
    stats[residual] = jnp.maximum(jnp.max(earlier.stats[residual]), solution.stats[residual])
    return eqx.tree_at(
        lambda s: (s.stats, s.result, s.failed_at), solution, (stats, result, failed_at)
    )
