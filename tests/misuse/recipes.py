"""For each public class and function: arguments that are right, and a use of the result."""

import functools as ft
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, get_origin

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

import ide_transformer as ide
from ide_transformer.integration.solve import solve_on
from tests.helpers import public_names
from tests.misuse import values as right


def solved(solver, equation=right.EQUATION, **options):
    return ide.solve(equation, right.U0, solver=solver, **options).u1


def applied(operator):
    if getattr(operator, "own_domain", False):
        source = ide.equation.Sourced(ide.Tied((operator,), 1), right.U0, right.DOMAIN)
        return solved(diffrax.Euler(), ide.Equation(source, ide.Free(), right.DOMAIN))
    on_circle = isinstance(operator, ide.FourierIntegral)
    domain = ide.TokenDomain.periodic(len(right.U0)) if on_circle else right.DOMAIN
    if isinstance(operator, ide.SourcedAttention):
        operator = operator.with_source(right.U0)
    return operator(right.U0, domain)


def with_gradient(gradient):
    reversible = isinstance(gradient, ide.Reversible)
    solver = ide.AlgebraicallyReversible() if reversible else ide.LieTrotter()
    return jax.grad(
        lambda u0: ide.solve(right.EQUATION, u0, solver=solver, gradient=gradient).u1.sum()
    )(right.U0)


def read(model):
    """The outputs of a model of any inputs."""
    return model(given_to(model.inputs))


def given_to(inputs):
    match inputs:
        case ide.contrib.EncodedInputs():
            return ide.contrib.SourceAndText(given_to(inputs.encoder.inputs), right.TEXT)
        case ide.models.TextInputs():
            return right.TEXT
        case ide.contrib.AudioInputs():
            return right.SOUND
        case ide.models.FunctionInputs():
            return right.FUNCTION[:, : inputs.channels]
    return right.IMAGE


def attended(positions):
    return ide.Attention(right.WIDTH, 2, key=right.KEY, causal=True, positions=positions)(
        right.U0, right.DOMAIN
    )


def with_exit(exit):
    options = dict(gradient=ide.Recompute(), exit=exit)
    return solve_on(ide.Mesh().whole, right.EQUATION, right.U0, **options).u1


TIED = right.language_model(ide.Tied(right.VALUES["block"], 2))
# Uses of what a class of this kind, or of this name, gives; the first that fits.
KINDS = {
    ide.AbstractOperator: applied,
    ide.AbstractConstraint: lambda x: (x.project(right.U0), x.tangent(right.U0, right.U0)),
    ide.AbstractControl: lambda x: solved(
        ide.LieTrotter(), ide.Equation(x, ide.Free(), right.DOMAIN)
    ),
    diffrax.AbstractSolver: solved,
    ide.AbstractGradient: with_gradient,
    ide.equation.AbstractRegion: lambda x: x.indicator(right.DOMAIN, right.DOMAIN),
    ide.AbstractPositions: attended,
    ide.equation.AbstractBasis: lambda x: x(jnp.linspace(0, 1, 5), 3),
}
USES: dict[str, Callable[[Any], Any]] = {
    "AdamsBashforth": lambda x: solved(x, steps_per_interval=2),
    **dict.fromkeys(
        ("ETDAB2", "ETDRK4", "ExponentialEuler"), lambda x: solved(x, right.DAMPED)
    ),
    **dict.fromkeys(("ExactFlow", "SteadyState"), lambda x: solved(x, right.DAMPING)),
    "TokenDomain": lambda domain: ide.Attention(right.WIDTH, 2, key=right.KEY)(
        right.U0, domain
    ),
    "interpolation": lambda transfer: transfer(right.U0),
    "Equation": lambda equation: solved(ide.LieTrotter(), equation),
    "solve": lambda solution: solution.u1,
    "EstimatedExit": with_exit,
    "InitialVelocity": lambda args: solved(ide.contrib.Nesterov(), args=args),
    "projected": solved,
    "Shear": lambda coupling: coupling.forward((right.U0, right.U0)),
    "Mesh": lambda mesh: ide.functional(TIED).on(mesh)(right.TEXT),
    "TokenConvolution": lambda convolution: convolution(right.U0),
    "Linear": lambda linear: linear(right.U0),
    "compiled": lambda compiled: compiled(right.TEXT),
    "CachedDecoder": lambda decoder: decoder.prefill(right.TEXT)[0],
    "ChannelsFirst": lambda emulator: emulator(jnp.ones((1, right.TOKENS))),
    "Field": lambda field: right.OF_FUNCTIONS(field),
    "error_budget": lambda budget: budget.total,
    "Text": lambda text: right.TEXT_ENCODER(text),
    "Encoded": lambda x: right.LISTENER(ide.contrib.SourceAndText(x, right.TEXT)),
    "SourceAndText": lambda inputs: right.LISTENER(inputs),
}


def use_of(name):
    public = public_names()[name.split(".")[0]]
    kinds = (use for kind, use in KINDS.items() if issubclass(public, kind))
    found = USES.get(name) or (next(kinds, None) if inspect.isclass(public) else None)
    return found or (lambda result: read(result) if isinstance(result, ide.Model) else result)


class Recipe(NamedTuple):
    """A call whose arguments are right, and a use of what it returns, which gives numbers."""

    call: Callable
    arguments: dict[str, Any]
    use: Callable[[Any], Any]


# Tuples that are checked where they are used: by a task, by a solve, by an exit, and by a
# scheme that makes a step. Files of a run are written by `train`, and `tests/training` gives it
# wrong configurations.
UNCHECKED = {"Batch", "Embedded", "Progress", "SolvePlan", "Step", "Timed"}
ELSEWHERE = {"train", "Solution", "InputError", "Encoded.on", "fed_back"}


def public_calls():
    """The public names that can be called, and the ways to build a class."""
    for name, value in public_names().items():
        if name in UNCHECKED | ELSEWHERE or get_origin(value) is not None:
            continue
        if inspect.isclass(value) and (inspect.isabstract(value) or "Abstract" in name):
            continue
        yield name, value
        for way, x in sorted(vars(value).items()):
            public_way = isinstance(x, classmethod) and not way.startswith("_")
            if public_way and f"{name}.{way}" not in ELSEWHERE:
                yield f"{name}.{way}", getattr(value, way)


def recipe(name, call):
    known, given = right.VALUES | right.OWN.get(name, {}), {}
    for argument, parameter in inspect.signature(call).parameters.items():
        if argument in known or argument not in right.LEFT:
            given[argument] = known.get(argument, parameter.default)
    unknown = [x for x, value in given.items() if value is inspect.Parameter.empty]
    assert not unknown, f"{name} has no right value for {unknown}; see values.py"
    return Recipe(call, given, use_of(name))


@ft.cache
def dense():
    with jax.ensure_compile_time_eval():
        saved = dict(solver=ide.RK4(), saveat=diffrax.SaveAt(dense=True))
        return eqx.filter_jit(lambda: ide.solve(right.EQUATION, right.U0, **saved))()


RECIPES = {name: recipe(name, call) for name, call in public_calls()}
RECIPES["Solution.evaluate"] = Recipe(
    lambda t: dense().evaluate(t), {"t": 0.5}, lambda state: state
)
OPERATORS = {
    name: recipe
    for name, recipe in RECIPES.items()
    if inspect.isclass(recipe.call) and issubclass(recipe.call, ide.AbstractOperator)
}
