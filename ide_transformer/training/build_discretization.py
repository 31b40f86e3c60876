"""From a configuration to a time-stepping scheme."""

import dataclasses
import inspect
from typing import Any, TypeVar

import diffrax
import equinox as eqx
import jax

from ..equation import AbstractConstraint, Free
from ..errors import InputError
from ..models import AbstractModel, Discretization
from ..solvers.base import projected
from .config import NATIVE, SchemeConfig, SolverConfig, TrainingConfig
from .names import check_options, find_constraint, find_gradient, find_solver


def build_discretization(
    config: SolverConfig, *, width: int, constrained: bool
) -> Discretization:
    """The time-stepping scheme of a model; where the state is constrained, its projected
    variant.

    **Arguments:**

    - `width`: of the state, for schemes with weights of that size.
    """
    solver = build_solver("solver", config, width)
    solver = projected(solver) if constrained else solver
    if config.rtol is None or config.atol is None:
        return Discretization(solver, steps_per_interval=config.steps_per_interval)
    controller = diffrax.PIDController(rtol=config.rtol, atol=config.atol)
    return Discretization(
        solver,
        stepsize_controller=controller,
        max_steps=config.max_steps,
        steps_for=config.steps_for,
    )


def build_solver(key: str, config: SchemeConfig, width: int) -> diffrax.AbstractSolver:
    """The solver that a configuration names, with the one inside it.

    **Arguments:**

    - `key`: where the configuration stands, for errors.
    - `width`: of the state.
    """
    make = find_solver(f"{key}.kind", config.kind)
    parameters = inspect.signature(make).parameters
    inner = next((name for name in ("sub_solver", "solver") if name in parameters), None)
    arguments: dict[str, Any] = {}
    if config.sub_solver is not None and inner is None:
        raise InputError(
            f"{key}.sub_solver: {config.kind} has no scheme inside it; drop it, or choose "
            f"for example {key}.kind=lie_trotter."
        )
    if config.sub_solver is not None:
        sub_key = f"{key}.sub_solver"
        arguments[inner] = build_solver(sub_key, config.sub_solver, width)  # pyright: ignore
    elif inner is not None and parameters[inner].default is inspect.Parameter.empty:
        raise InputError(
            f"{key}.kind={config.kind} needs a scheme inside it: give {key}.sub_solver, for "
            "example lie_trotter."
        )
    if "features" in parameters:
        arguments["features"] = width
    options_key = f"{key}.options"
    check_options(options_key, config.options, make, {"sub_solver", "solver", "features"})
    for name, value in config.options.items():
        # The one kind of argument that is an object: a constraint, by its name.
        named = isinstance(value, str)
        arguments[name] = find_constraint(options_key, value)() if named else value
    try:
        return make(**arguments)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None


M = TypeVar("M", bound=AbstractModel)


def for_training(model: M, config: TrainingConfig) -> M:
    """The same model with the gradient mode and the precision of its products that are
    configured."""
    key = "training.gradient"
    kind, options = config.gradient.kind, config.gradient.options
    make = find_gradient(f"{key}.kind", kind)
    check_options(f"{key}.options", options, make, {"policy"})
    try:
        gradient = make(**options)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    dtype = None if config.compute_dtype == "float32" else config.compute_dtype
    scheme = dataclasses.replace(model.discretization, gradient=gradient, compute_dtype=dtype)
    return eqx.tree_at(lambda m: m.discretization, model, scheme)


def with_configured_solver(model: M, config: SolverConfig) -> M:
    """The same weights solved by the configured scheme; `native` is the one they have."""
    if config.kind == NATIVE:
        return model
    sets = jax.tree.leaves(
        eqx.filter_eval_shape(model.constraint, 0.0),
        is_leaf=lambda x: isinstance(x, AbstractConstraint),
    )
    constrained = not all(isinstance(x, Free) for x in sets)
    scheme = build_discretization(config, width=model.features, constrained=constrained)
    return eqx.tree_at(lambda m: m.discretization, model, scheme)
