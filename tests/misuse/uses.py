"""Uses of what the public classes and functions give; each gives numbers."""

import inspect
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from misuse.values import (
    DAMPED,
    DAMPING,
    DOMAIN,
    EQUATION,
    FUNCTION,
    IMAGE,
    KEY,
    LISTENER,
    MODEL,
    OF_FUNCTIONS,
    SEEING_ALL,
    SOUND,
    TEXT,
    TEXT_ENCODER,
    TOKENS,
    U0,
    VALUES,
    WIDTH,
    language_model,
    linear,
    parts,
)

import ide_transformer as ide


def solved(solver, equation=EQUATION, **options):
    return ide.solve(equation, U0, solver=solver, **options).u1


def applied(operator):
    if getattr(operator, "own_domain", False):
        source = ide.Sourced(ide.Tied((operator,), 1), U0, DOMAIN)
        return solved(diffrax.Euler(), ide.Equation(source, ide.Free(), DOMAIN))
    on_circle = isinstance(operator, ide.Advection | ide.FourierIntegral)
    domain = ide.TokenDomain.periodic(len(U0)) if on_circle else DOMAIN
    if isinstance(operator, ide.SourcedAttention):
        operator = operator.with_source(U0)
    return operator(U0, domain)


def with_gradient(gradient):
    reversible = isinstance(gradient, ide.Reversible)
    solver = ide.AlgebraicallyReversible() if reversible else ide.LieTrotter()
    return jax.grad(
        lambda u0: ide.solve(EQUATION, u0, solver=solver, gradient=gradient).u1.sum()
    )(U0)


def read(model):
    """The outputs of a model of any inputs."""
    return model(given_to(model.inputs))


def given_to(inputs):
    match inputs:
        case ide.EncodedInputs():
            return ide.SourceAndText(given_to(inputs.encoder.inputs), TEXT)
        case ide.TextInputs():
            return TEXT
        case ide.AudioInputs():
            return SOUND
        case ide.FunctionInputs():
            return FUNCTION[:, : inputs.channels]
        case ide.VCycleInputs():
            return jnp.ones((4, WIDTH))
        case ide.GridInputs():
            return jnp.ones((inputs.tokens if hasattr(inputs, "tokens") else TOKENS, WIDTH))
    return IMAGE


def attended(positions):
    return ide.Attention(WIDTH, 2, key=KEY, causal=True, positions=positions)(U0, DOMAIN)


def entered(inputs):
    if isinstance(inputs, ide.EncodedInputs):
        return read(LISTENER.with_inputs(inputs))
    return read(ide.Model(inputs, **parts(SEEING_ALL), read_out=ide.States()))


def headed(read_out):
    models = {ide.TokenLogits: MODEL, ide.FunctionValues: OF_FUNCTIONS}
    if type(read_out) in models:
        return read_out(U0, models[type(read_out)].inputs)
    return read(ide.ImageEncoder(**IMAGES, read_out=read_out))


def with_exit(exit):
    discretization = ide.Discretization(ide.LieTrotter(), exit=exit)
    return discretization.solve(EQUATION, U0, read_out=lambda u: u).u1


TIED = language_model(ide.Tied(VALUES["block"], 2))
IMAGES = dict(
    **parts(SEEING_ALL),
    image_shape=(2, 2, 1),
    patch=1,
    embedding=linear(1),
    prefix=(jnp.zeros(WIDTH),),
    positions=jnp.zeros((5, WIDTH)),
)

# Uses of what a class of this kind, or of this name, gives; the first that fits.
KINDS = {
    ide.AbstractOperator: applied,
    ide.AbstractConstraint: lambda x: (x.project(U0), x.tangent(U0, U0)),
    ide.AbstractControl: lambda x: solved(
        ide.LieTrotter(), ide.Equation(x, ide.Free(), DOMAIN)
    ),
    diffrax.AbstractSolver: solved,
    ide.AbstractGradient: with_gradient,
    ide.AbstractRegion: lambda x: x.indicator(DOMAIN, DOMAIN),
    ide.AbstractPositions: attended,
    ide.AbstractBasis: lambda x: x(jnp.linspace(0, 1, 5), 3),
    ide.AbstractInputs: entered,
    ide.AbstractReadOut: headed,
    ide.TokenDomain: lambda x: (x.points, x.weights),
}
USES: dict[str, Callable[[Any], Any]] = {
    "AdamsBashforth": lambda x: solved(x, steps_per_interval=2),
    **dict.fromkeys(("ETDAB2", "ExponentialEuler"), lambda x: solved(x, DAMPED)),
    **dict.fromkeys(("ExactFlow", "SteadyState"), lambda x: solved(x, DAMPING)),
    "TokenDomain": lambda domain: ide.Attention(WIDTH, 2, key=KEY)(U0, domain),
    **dict.fromkeys(("interpolation", "restriction"), lambda transfer: transfer(U0)),
    "coarsened": lambda domain: domain.points,
    "FeatureDomain": lambda domain: domain.weights,
    "FunctionSpace": lambda space: space.features.values,
    "Equation": lambda equation: solved(ide.LieTrotter(), equation),
    "solve": lambda solution: solution.u1,
    "Discretization": lambda x: x.solve(EQUATION, U0).u1,
    "EstimatedExit": with_exit,
    "InitialVelocity": lambda args: solved(ide.Nesterov(), args=args),
    "projected": solved,
    "Shear": lambda coupling: coupling.forward((U0, U0)),
    "StepField": lambda field: field.h,
    "Mesh": lambda mesh: ide.functional(TIED).on(mesh)(TEXT),
    "functional": read,
    "TokenConvolution": lambda convolution: convolution(U0),
    "Linear": lambda linear: linear(U0),
    "compiled": lambda compiled: compiled(TEXT),
    "CachedDecoder": lambda decoder: decoder.prefill(TEXT)[0],
    "ChannelsFirst": lambda emulator: emulator(jnp.ones((1, TOKENS))),
    "Field": lambda field: OF_FUNCTIONS(field),
    "error_budget": lambda budget: budget.total,
    "Text": lambda text: TEXT_ENCODER(text),
    "Encoded": lambda x: LISTENER(ide.SourceAndText(x, TEXT)),
    "SourceAndText": lambda inputs: LISTENER(inputs),
}


def use_of(name):
    if name in USES:
        return USES[name]
    public = getattr(ide, name.split(".")[0])
    if inspect.isclass(public):
        found = (use for kind, use in KINDS.items() if issubclass(public, kind))
        return next(found, read)
    return lambda result: read(result) if isinstance(result, ide.Model) else result
