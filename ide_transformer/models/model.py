import abc
import dataclasses
import functools as ft
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Num, PRNGKeyArray, PyTree

from ..arguments import checked
from ..equation import (
    AbstractControl,
    AbstractRandomOperator,
    Equation,
    FunctionSpace,
    Sampled,
    TokenDomain,
    contents,
    listing,
    low_precision,
    number_of_weights,
    on_devices,
    parts,
    spelled_options,
    with_source,
)
from ..equation.domain import by_samples
from ..errors import InputError
from ..integration import AbstractExit, Discretization as Discretization, Solution
from ..solvers import InitialVelocity, draws, keeps_constraint, with_key
from .encoded import Encoded
from .mesh import Mesh
from .text import Text


if TYPE_CHECKING:
    # A model may have a property in the place of one of them, so none is an argument.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class Model(eqx.Module):
    """A map from inputs to outputs through the solution of an equation."""

    control: AbstractVar[AbstractControl]
    constraint: AbstractVar[AbstractControl]
    discretization: AbstractVar[Discretization]

    def __repr__(self) -> str:
        entries = contents(self.control, self.constraint)
        sizes = spelled_options(self, without=(*entries, "discretization"))
        scheme = spelled_options(self.discretization)
        own = {"parameters": number_of_weights(self), "sizes": sizes}
        return listing(self, {**own, **entries, "scheme": scheme})

    @abc.abstractmethod
    def embed(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        """The state at depth 0 and the domain on which it lives."""

    @abc.abstractmethod
    def read_out(self, u: Float[Array, "*batch tokens features"]) -> PyTree[Array]:
        """The outputs, from the state at depth T."""

    def shaped(self, outputs: PyTree[Array], inputs: PyTree[ArrayLike]) -> PyTree[Array]:
        """The outputs in the shape that belongs to the inputs; by default as `read_out` gives
        them."""
        return outputs

    def encoded(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> Encoded | None:
        """The states that cross-attention sees at every depth; `None` for a model without an
        encoder."""
        return None

    def of_text(self, text: Text) -> PyTree[ArrayLike]:
        """Inputs in which `text` is what is read and written, so that it can be tried whether a
        token sees later ones; for models of texts.

        **Raises:** `InputError` for a model that does not say what its inputs are.
        """
        raise InputError(
            f"{type(self).__name__}: it has to be tried that no token sees later ones, and the "
            "model does not say what its inputs are for a text; define of_text(text), with the "
            "attributes vocabulary and context."
        )

    def initial_velocity(self, inputs: PyTree[ArrayLike]) -> InitialVelocity | None:
        """The velocity at depth 0, for schemes with momentum; `None` for zero."""
        return None

    def at_points(self, space: FunctionSpace) -> "Model":
        """The model on functions of a feature, at the points of Ω_y: its weights are read as
        the coefficients of functions of `space`, see `FunctionalModel`.

        **Raises:** `InputError` for a model that is not made of such.
        """
        raise InputError(
            f"{type(self).__name__} is no function of its features; a LanguageModel and an "
            "OperatorModel are."
        )

    def each_stage(self, change: Callable[["Model"], "Model"]) -> "Model":
        """Change each model in it that solves an equation: itself,
        but for a `StagedModel`, whose stages are such models."""
        return change(self)

    @property
    def ordinary(self) -> "Model":
        """The model with matrices as weights: itself, but for a `FunctionalModel`."""
        return self

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """The width of the state."""

    @property
    @abc.abstractmethod
    def domain(self) -> TokenDomain:
        """The domain of a full-sized input."""

    @property
    def random(self) -> bool:
        """Whether its operators or its scheme draw anything in training, such as dropout."""
        random = parts(self.control, AbstractRandomOperator)
        return bool(random) or draws(self.discretization.solver)

    @property
    def rounded_control(self) -> AbstractControl:
        """The control with which the equation is solved: its matrices in `compute_dtype`."""
        dtype = self.discretization.compute_dtype
        return self.control if dtype is None else low_precision(self.control, dtype)

    @property
    def equation(self) -> Equation:
        """The equation on the domain of a full-sized input."""
        return Equation(self.control, self.constraint, self.domain)

    @property
    def solver(self) -> diffrax.AbstractSolver:
        """The scheme; where the state is constrained, its projected variant."""
        return keeps_constraint(self.discretization.solver, self.constraint)

    def with_solver(self, solver: diffrax.AbstractSolver, **options) -> "Model":
        """Solve the same weights by another scheme.

        **Arguments:**

        - `solver`: any `diffrax.AbstractSolver`.
        - `options`: the other arguments of `Discretization`. Those not given return to their
          defaults, but for `gradient`.
        """

        def change(model: Model) -> Model:
            given = {"gradient": model.discretization.gradient, **options}
            discretization = Discretization(solver, **given)
            return eqx.tree_at(lambda m: m.discretization, model, discretization)

        # An exit is not for all stages.
        exit = options.pop("exit", None)
        changed = self.each_stage(change)
        return changed if exit is None else changed.with_options(exit=exit)

    @checked
    def with_exit(self, exit: AbstractExit | None) -> "Model":
        """Let tokens stop before the end of a solve, see `AbstractExit`;
        with `None`, none does. `stats["field_evaluations"]` of a solution then has the number
        of each token, `[..., tokens]`.

        **Raises:** `InputError` with adaptive steps; a solve also for schemes that carry
        something from step to step.
        """
        return self.with_options(exit=exit)

    def with_options(self, **options) -> "Model":
        """Replace some options of the `Discretization`."""

        def change(model: Model) -> Model:
            discretization = dataclasses.replace(model.discretization, **options)
            return eqx.tree_at(lambda m: m.discretization, model, discretization)

        return self.each_stage(change)

    @checked
    def on(self, mesh: Mesh) -> "Model":
        """Put the same weights on another mesh. What is solved with more steps costs more,
        and comes closer to the solution of the equation where the model was trained for that:
        see `training.meshes`.

        **Raises:** `InputError` where the model has no such mesh.
        """
        model: Model = self
        if mesh.horizon is not None:
            horizon = mesh.horizon
            model = model._in_depth(lambda part: part.extend(horizon))
        if mesh.width is not None:
            model = model.with_width(mesh.width)
        if mesh.intervals is not None:
            intervals = mesh.intervals
            model = model._in_depth(lambda part: _resampled(part, intervals))
        if mesh.tokens is not None:
            model = model.with_tokens(mesh.tokens)
        options: dict[str, Any] = {} if mesh.solver is None else {"solver": mesh.solver}
        if mesh.steps_per_interval is not None:
            number = mesh.steps_per_interval
            options |= {"steps_per_interval": number, "stepsize_controller": None}
        return model.with_options(**options) if options else model

    def with_tokens(self, tokens: int | tuple[int, int]) -> "Model":
        """The model for inputs of another number of tokens: the same, where they say by
        themselves how many they have. For `on`."""
        return self

    def with_width(self, features: int) -> "Model":
        """The model with another number of features. For `on`.

        **Raises:** `InputError` for a model whose features are no points of functions.
        """
        raise InputError(
            f"{type(self).__name__} has matrices for {self.features} features; for another "
            "width its weights have to be functions of them: functional(model).on(mesh)."
        )

    def _in_depth(self, change: Callable[[AbstractControl], AbstractControl]) -> "Model":
        """Change all that depends on depth."""

        def parts(model):
            return model.control, model.constraint

        def changed(model: Model) -> Model:
            return eqx.tree_at(parts, model, tuple(map(change, parts(model))))

        return self.each_stage(changed)

    @checked
    def solve(
        self,
        inputs: PyTree[Num[ArrayLike, "..."] | Bool[ArrayLike, "..."]],
        *,
        key: PRNGKeyArray | None = None,
        saveat: diffrax.SaveAt = diffrax.SaveAt(t1=True),
    ) -> Solution:
        """The solution of the equation that starts from the embedded inputs. A solve that
        fails does not raise: look at its `result`.

        **Arguments:**

        - `inputs`: see the model.
        - `key`: draws the dropout; without one there is none.
        - `saveat`: see `solve`.
        """
        if not jax.tree.leaves(inputs) or isinstance(inputs, eqx.Module):
            raise InputError(f"{type(self).__name__}: inputs={inputs!r} are no arrays.")
        solve = ft.partial(self._solve_batch, saveat=saveat)
        if self.discretization.steps_for == "batch":
            return solve(inputs, key)
        u0, _ = eqx.filter_eval_shape(self.embed, inputs)
        return _solve_samples(solve, inputs, key, u0.ndim - 2)

    def _solve_batch(
        self, inputs: PyTree[ArrayLike], key: PRNGKeyArray | None, *, saveat: diffrax.SaveAt
    ) -> Solution:
        """The solution with the same steps for all samples."""
        control, discretization = self.rounded_control, self.discretization
        embed_key, encoder_key = None, None
        if key is not None:
            embed_key, depth_key, encoder_key = jax.random.split(key, 3)
            control = Sampled(control, depth_key)
            solver = with_key(self.discretization.solver, depth_key)
            discretization = dataclasses.replace(self.discretization, solver=solver)
        u0, domain = self.embed(inputs, key=embed_key)
        u0 = on_devices(u0)
        control = self.with_sources(control, u0, inputs, key=encoder_key)
        equation = Equation(control, self.constraint, domain)
        return discretization.solve(
            equation,
            u0,
            saveat=saveat,
            args=self.initial_velocity(inputs),
            throw=False,
            read_out=self.read_out,
        )

    def with_sources(
        self,
        control: AbstractControl,
        u0: Float[Array, "*batch tokens features"],
        inputs: PyTree[ArrayLike],
        *,
        key: PRNGKeyArray | None = None,
    ) -> AbstractControl:
        """A control whose operators know the initial state, and what an encoder made of the
        inputs where there is one."""
        control, encoded = with_source(control, u0), self.encoded(inputs, key=key)
        if encoded is None:
            return control
        return with_source(control, encoded.states, encoded.domain)

    def __call__(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> PyTree[Array]:
        """The outputs for one sample, or for any leading batch axes.

        **Arguments:**

        - `inputs`: see the model.
        - `key`: draws the dropout; without one there is none.
        """
        return self.shaped(self.read_out(self.solve(inputs, key=key).u1), inputs)


def _resampled(control: AbstractControl, intervals: int) -> AbstractControl:
    found = control.resample(intervals)
    if found.num_intervals != intervals:
        raise InputError(
            f"{type(control).__name__}.resample({intervals}) gives {found.num_intervals} "
            f"intervals; have it give {intervals}, or raise InputError."
        )
    return found


def _solve_samples(
    solve: Callable, inputs: PyTree[ArrayLike], key: PRNGKeyArray | None, axes: int
) -> Solution:
    """A solve for each sample, over `axes` leading axes. The numbers of `stats` have these
    axes too."""
    if not axes:
        return solve(inputs, key)
    inputs = jax.tree.map(jnp.asarray, inputs, is_leaf=lambda x: isinstance(x, list))
    own = by_samples(inputs, axes)
    number = jax.tree.leaves(eqx.filter(inputs, own))[0].shape[0]
    keys = None if key is None else jax.random.split(key, number)
    along = jax.tree.map(lambda x: 0 if x else None, own), None if key is None else 0
    solution = jax.vmap(lambda x, k: _solve_samples(solve, x, k, axes - 1), along)(inputs, keys)
    us = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), solution.us)
    return eqx.tree_at(lambda s: (s.ts, s.us), solution, (solution.ts[0], us))
