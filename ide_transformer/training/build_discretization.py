"""The discretisation of a configuration: scheme, steps, gradient mode and precision."""

import dataclasses
from typing import TypeVar

import diffrax
import equinox as eqx
import jax

from ..equation import AbstractConstraint, Free
from ..integration import AbstractGradient
from ..models import AbstractModel, Discretization
from ..solvers import projected
from .config import NATIVE, SolverConfig, TrainingConfig
from .construct import Offers, construct


M = TypeVar("M", bound=AbstractModel)


def build_discretization(
    config: SolverConfig, *, width: int, constrained: bool
) -> Discretization:
    """The time-stepping scheme of a model; where the state is constrained, its projected
    variant.

    **Arguments:**

    - `width`: of the state, for schemes with weights of that size.
    """
    offers = Offers({diffrax.AbstractSolver: {"features": width}})
    solver = construct("solver", config, diffrax.AbstractSolver, offers)
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


def with_training(model: M, config: TrainingConfig) -> M:
    """The same model with the configured gradient mode and precision of its products."""
    gradient = construct("training.gradient", config.gradient, AbstractGradient)
    dtype = None if config.compute_dtype == "float32" else config.compute_dtype
    discretization = dataclasses.replace(
        model.discretization, gradient=gradient, compute_dtype=dtype
    )
    return eqx.tree_at(lambda m: m.discretization, model, discretization)


def with_solver(model: M, config: SolverConfig) -> M:
    """The same weights solved by the configured scheme; `native` is the one they have."""
    if config.kind == NATIVE:
        return model
    sets = jax.tree.leaves(
        eqx.filter_eval_shape(model.constraint, 0.0),
        is_leaf=lambda x: isinstance(x, AbstractConstraint),
    )
    constrained = any(type(x) is not Free for x in sets)
    discretization = build_discretization(config, width=model.features, constrained=constrained)
    return eqx.tree_at(lambda m: m.discretization, model, discretization)
