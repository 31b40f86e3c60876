"""For each public class and function: arguments that are right, and a use of the result."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide


KEY = jax.random.key(0)
WIDTH, TOKENS, VOCABULARY, CONTEXT = 4, 3, 7, 5
DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = jax.random.normal(KEY, (TOKENS, WIDTH))
TOKENS_OF_TEXT = jnp.array([1, 2, 3])


class Recipe(NamedTuple):
    """A call whose arguments are right, and a use of what it returns, which gives numbers."""

    call: Callable
    arguments: dict[str, Any]
    use: Callable[[Any], Any]


def block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    return (
        ide.Attention(WIDTH, 2, causal=True, normalization=norm, key=first),
        ide.FeedForward(WIDTH, 8, normalization=norm, key=second),
    )


CONTROL = ide.PiecewiseConstant.build(block, 2, key=KEY)
SEEING_ALL = ide.Tied((ide.Attention(WIDTH, 2, key=KEY),), 2)
EQUATION = ide.Equation(CONTROL, ide.Free(), DOMAIN)
DAMPED = ide.Equation(
    ide.Tied((ide.Damping(1.0), ide.FeedForward(WIDTH, 8, key=KEY)), 2), ide.Free(), DOMAIN
)


def solved(solver, equation=EQUATION):
    return ide.solve(equation, U0, solver=solver).u1


def applied(operator):
    return operator(U0, DOMAIN)


def evaluated(control):
    return ide.solve(ide.Equation(control, ide.Free(), DOMAIN), U0, solver=ide.LieTrotter()).u1


def on_sphere(constraint):
    return constraint.project(U0), constraint.tangent(U0, U0)


@cache
def language_model(**options) -> ide.LanguageModel:
    arguments = dict(vocabulary=VOCABULARY, context=CONTEXT, features=WIDTH)
    return ide.LanguageModel(**arguments, **model_parts(), **options)


def model_parts(control=CONTROL):
    return dict(
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=KEY,
    )


def encoder_parts(control=CONTROL):
    return {name: x for name, x in model_parts(control).items() if name != "key"}


def linear(features_in, features_out):
    return ide.ImageClassifier(
        (1, 1, features_in), 1, features_out, features_out, **model_parts()
    ).embedding


@cache
def text_encoder():
    return ide.TextEncoder(jnp.ones((VOCABULARY, WIDTH)), **encoder_parts(), context=CONTEXT)


@cache
def speech_encoder(**changes):
    arguments = dict(
        first_convolution=ide.TokenConvolution(2, WIDTH, key=KEY),
        second_convolution=ide.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY),
        positions=jnp.zeros((TOKENS, WIDTH)),
    )
    return ide.SpeechEncoder(**(arguments | changes), **encoder_parts())


SOUND = np.ones((2, 2 * TOKENS), np.float32)
IMAGE = np.ones((2, 2, 1), np.float32)


@cache
def listener():
    def layer(key):
        attention, feed_forward = block(key)
        return attention, ide.CrossAttention(WIDTH, 2, key=key), feed_forward

    decoder = ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        **(model_parts() | {"control": ide.PiecewiseConstant.build(layer, 2, key=KEY)}),
    )
    return ide.EncoderDecoder(speech_encoder(), decoder)


def image_parts():
    return dict(
        image_shape=(2, 2, 1),
        patch=1,
        embedding=linear(1, WIDTH),
        prefix=(jnp.zeros(WIDTH),),
        positions=jnp.zeros((5, WIDTH)),
        **encoder_parts(SEEING_ALL),
    )


def headed(head):
    return ide.ImageEncoder(**image_parts(), head=head)(IMAGE)


def scheme(name: str, arguments: dict | None = None, equation=EQUATION) -> Recipe:
    return Recipe(getattr(ide, name), arguments or {}, lambda x: solved(x, equation))


def operator(name: str, **arguments) -> Recipe:
    return Recipe(getattr(ide, name), arguments, applied)


def constraint(name: str, **arguments) -> Recipe:
    return Recipe(getattr(ide, name), arguments, on_sphere)


def with_source(operator):
    return operator.with_source(U0)(U0, DOMAIN)


def attended(positions):
    attention = ide.Attention(WIDTH, 2, key=KEY, causal=True, positions=positions)
    return attention(U0, DOMAIN)


def stacked(number):
    return eqx.filter_vmap(block)(jax.random.split(KEY, number))


def with_gradient(gradient, solver=None):
    solver = ide.LieTrotter() if solver is None else solver

    def loss(u0):
        return ide.solve(EQUATION, u0, solver=solver, gradient=gradient).u1.sum()

    return jax.grad(loss)(U0)


def two_domains(operator):
    source = ide.Sourced(ide.Tied((operator,), 1), U0, DOMAIN)
    equation = ide.Equation(source, ide.Free(), DOMAIN)
    return ide.solve(equation, U0, solver=diffrax.Euler()).u1


FIELD = EQUATION.terms_of(0)
PAIR = U0, U0

OPERATORS = {
    "Attention": operator(
        "Attention",
        features=WIDTH,
        heads=2,
        key=KEY,
        key_value_heads=1,
        head_features=2,
        causal=True,
        window=2,
        positions=ide.Rotary(),
        normalization=ide.Free(),
        query_normalization=ide.Free(),
        key_normalization=ide.Free(),
        bias=True,
        key_bias=True,
        output_bias=True,
        std=0.1,
        output_std=0.1,
    ),
    "CrossAttention": Recipe(
        ide.CrossAttention,
        dict(
            features=WIDTH,
            heads=2,
            key=KEY,
            source_features=WIDTH,
            head_features=2,
            normalization=ide.Free(),
            bias=True,
            key_bias=True,
            std=0.1,
            output_std=0.1,
        ),
        two_domains,
    ),
    "Damping": operator("Damping", rate=0.5),
    "DeltaRule": operator("DeltaRule", key=jnp.ones((2, 2)), value=jnp.ones(2), rate=1.0),
    "Diffusion": operator("Diffusion", rate=0.5),
    "Dropout": operator("Dropout", operator=ide.Damping(1.0), rate=0.5, key=KEY),
    "FeatureIntegral": operator(
        "FeatureIntegral",
        features=WIDTH,
        key=KEY,
        normalization=ide.Free(),
        bias=True,
        std=0.1,
        output_std=0.1,
    ),
    **{
        name: operator(
            name,
            features=WIDTH,
            hidden=8,
            key=KEY,
            activation=ide.gelu,
            normalization=ide.Free(),
            bias=True,
            std=0.1,
            output_std=0.1,
        )
        for name in ("FeedForward", "GatedFeedForward")
    },
    "Relaxation": operator("Relaxation", rate=1.0, source=U0),
    "Scaled": operator("Scaled", operator=ide.Damping(1.0), rate=0.5),
    "SourcedAttention": Recipe(
        ide.SourcedAttention,
        dict(attention=ide.Attention(WIDTH, 2, key=KEY), key=KEY, std=0.1),
        with_source,
    ),
    "Fredholm": Recipe(ide.Fredholm, {}, lambda region: region.meets((0, 1), (0, 1))),
    "Volterra": Recipe(
        ide.Volterra, {"window": 2}, lambda region: region.indicator(DOMAIN, DOMAIN)
    ),
    "NoPositions": Recipe(ide.NoPositions, {}, attended),
    "Rotary": Recipe(ide.Rotary, dict(base=100.0, features=2, stretch=(1.0,)), attended),
    "RelativeBias": Recipe(
        ide.RelativeBias, dict(table=jnp.ones((8, 2)), max_distance=16), attended
    ),
    **{
        name: Recipe(getattr(ide, name), {"x": U0}, lambda x: x)
        for name in ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")
    },
}

CONSTRAINTS = {
    "Free": constraint("Free"),
    "Nonnegative": constraint("Nonnegative"),
    "LayerNorm": constraint("LayerNorm", gain=jnp.ones(WIDTH), bias=0.5, eps=1e-5),
    "RMSNorm": constraint("RMSNorm", gain=jnp.ones(WIDTH), eps=1e-5),
    "Sphere": constraint("Sphere", gain=jnp.ones(WIDTH), bias=0.5, eps=1e-5),
    "RMSSphere": constraint("RMSSphere", gain=jnp.ones(WIDTH), eps=1e-5),
}

CONTROLS = {
    "PiecewiseConstant": Recipe(
        ide.PiecewiseConstant, dict(blocks=stacked(2), interval_length=1.0), evaluated
    ),
    "PiecewiseLinear": Recipe(
        ide.PiecewiseLinear, dict(knots=stacked(3), interval_length=1.0), evaluated
    ),
    "Tied": Recipe(
        ide.Tied, dict(block=block(KEY), num_intervals=2, interval_length=1.0), evaluated
    ),
    **{
        name: Recipe(
            getattr(ide, name),
            dict(coefficients=stacked(3), num_intervals=3, interval_length=1.0),
            evaluated,
        )
        for name in ("Chebyshev", "Fourier")
    },
    "Hypernetwork": Recipe(
        ide.Hypernetwork,
        dict(
            coefficients=stacked(3),
            inner=jnp.ones((3, 2)),
            outer=jnp.ones((3, 2)),
            num_intervals=2,
            interval_length=1.0,
        ),
        evaluated,
    ),
    "Sampled": Recipe(ide.Sampled, dict(control=CONTROL, key=KEY), evaluated),
    "Sourced": Recipe(ide.Sourced, dict(control=CONTROL, source=U0, domain=DOMAIN), evaluated),
    **{
        f"{name}.build": Recipe(
            getattr(ide, name).build,
            dict(make_block=block, num_intervals=3, key=KEY, **options),
            evaluated,
        )
        for name, options in {
            "PiecewiseConstant": {},
            "PiecewiseLinear": {},
            "Tied": {},
            "Chebyshev": {"terms": 2},
            "Fourier": {"waves": 1},
            "Hypernetwork": {"terms": 2, "hidden": 2, "frequencies": 1},
        }.items()
    },
}

EQUATIONS = {
    "TokenDomain": Recipe(
        ide.TokenDomain,
        dict(points=DOMAIN.points, weights=jnp.ones(TOKENS), grid=(TOKENS,)),
        lambda domain: ide.Attention(WIDTH, 2, key=KEY)(U0, domain),
    ),
    "TokenDomain.uniform": Recipe(
        ide.TokenDomain.uniform, {"shape": TOKENS}, lambda domain: domain.points
    ),
    "Equation": Recipe(
        ide.Equation,
        dict(control=CONTROL, constraint=ide.Free(), domain=DOMAIN),
        lambda equation: solved(ide.LieTrotter(), equation),
    ),
    "solve": Recipe(
        ide.solve,
        dict(
            equation=EQUATION,
            u0=U0,
            solver=ide.LieTrotter(),
            steps_per_interval=2,
            stepsize_controller=None,
            gradient=ide.Direct(),
            saveat=diffrax.SaveAt(t1=True),
            args=None,
            max_steps=16,
            throw=True,
        ),
        lambda solution: solution.u1,
    ),
    "Discretization": Recipe(
        ide.Discretization,
        dict(
            solver=ide.LieTrotter(),
            steps_per_interval=2,
            stepsize_controller=None,
            gradient=ide.Direct(),
            max_steps=16,
            steps_for="batch",
            compute_dtype=None,
        ),
        lambda discretization: discretization.solve(EQUATION, U0).u1,
    ),
    "Solution.evaluate": Recipe(
        ide.solve(EQUATION, U0, solver=ide.RK4(), saveat=diffrax.SaveAt(dense=True)).evaluate,
        {"t": 0.5},
        lambda state: state,
    ),
    "Direct": Recipe(ide.Direct, {}, with_gradient),
    "Recompute": Recipe(ide.Recompute, {"policy": None}, with_gradient),
    "Recursive": Recipe(ide.Recursive, {"levels": 1, "policy": None}, with_gradient),
    "Reversible": Recipe(
        ide.Reversible,
        {"tolerance": 1e-3},
        lambda gradient: with_gradient(gradient, ide.AlgebraicallyReversible()),
    ),
    "rebuilding_error": Recipe(
        ide.rebuilding_error,
        dict(
            equation=EQUATION,
            u0=U0,
            solver=ide.AlgebraicallyReversible(),
            steps_per_interval=1,
            args=None,
        ),
        lambda error: error,
    ),
}

SCHEMES = {
    "AdamsBashforth": scheme("AdamsBashforth", {"steps": 2}),
    "AlgebraicallyReversible": scheme(
        "AlgebraicallyReversible", {"solver": diffrax.Heun(), "coupling": 0.9}
    ),
    "Composition": scheme("Composition", {"sub_solver": ide.RK4(), "coefficients": (0.5, 0.5)}),
    "GatedRK2": scheme("GatedRK2", {"features": WIDTH}),
    "HeavyBall": scheme("HeavyBall", dict(momentum=0.5, gain=1.0, normalization=ide.Free())),
    "Nesterov": scheme(
        "Nesterov", dict(momentum=0.5, lookahead=0.5, gain=1.0, normalization=ide.Free())
    ),
    "PresymplecticEuler": scheme(
        "PresymplecticEuler", dict(logarithmic=1.0, linear=0.1, normalization=ide.Free())
    ),
    **{
        name: scheme(name, {"tolerance": 1e-3})
        for name in ("ImplicitEuler", "ImplicitMidpoint")
    },
    "MatrixFree": scheme("MatrixFree", {"solver": diffrax.Kvaerno3(), "tolerance": 1e-3}),
    "SteadyState": Recipe(
        ide.SteadyState,
        {"solver": diffrax.Euler(), "tolerance": 1e-3},
        lambda x: solved(x, ide.Equation(ide.Tied((ide.Damping(1.0),), 1), ide.Free(), DOMAIN)),
    ),
    **{name: scheme(name) for name in ("RK4", "Leapfrog", "ETDAB2", "ExponentialEuler")},
    **{name: scheme(name, equation=DAMPED) for name in ("ETDAB2", "ExponentialEuler")},
    "ExactFlow": scheme(
        "ExactFlow", equation=ide.Equation(ide.Tied((ide.Damping(1.0),), 1), ide.Free(), DOMAIN)
    ),
    **{name: scheme(name) for name in ("PaperSplitting", "ConsistentPaperSplitting")},
    **{
        name: scheme(name, {"sub_solver": diffrax.Euler()})
        for name in (
            "LieTrotter",
            "LieStrang",
            "ParallelSplitting",
            "Strang",
            "Suzuki4",
            "Yoshida4",
        )
    },
    **{
        name: scheme(name, {"solver": diffrax.Euler(), "block": ide.LieTrotter()})
        for name in ("Residual", "Velocity")
    },
    **{name: scheme(name, {"solver": ide.RK4()}) for name in ("Projected", "Tangential")},
    "projected": scheme("projected", {"solver": ide.RK4()}),
    "Shear": Recipe(
        ide.Shear,
        dict(increment=jnp.sin, target=0, scale=1.0),
        lambda coupling: coupling.forward(PAIR),
    ),
    "Swap": Recipe(ide.Swap, {}, lambda coupling: coupling.forward(PAIR)),
    "StepField": Recipe(
        ide.StepField, dict(terms=FIELD, t0=0.0, t1=1.0, args=None), lambda field: field.h
    ),
    "single_step": Recipe(
        ide.single_step,
        dict(solver=ide.RK4(), terms=FIELD, t0=0.0, t1=1.0, u=U0, args=None),
        lambda u: u,
    ),
}

MODELS = {
    "LanguageModel": Recipe(
        ide.LanguageModel,
        dict(
            vocabulary=VOCABULARY,
            context=CONTEXT,
            features=WIDTH,
            **model_parts(),
            learned_positions=True,
            tied=True,
            readout_bias=True,
            embedding_scale=1.0,
            input_normalization=ide.Free(),
            output_normalization=ide.Free(),
            dropout=0.1,
            std=0.1,
        ),
        lambda model: model(TOKENS_OF_TEXT),
    ),
    "ImageClassifier": Recipe(
        ide.ImageClassifier,
        dict(
            image_shape=(2, 2, 1),
            patch=1,
            classes=3,
            features=WIDTH,
            **model_parts(SEEING_ALL),
            class_token=True,
            input_normalization=ide.Free(),
            output_normalization=ide.Free(),
            dropout=0.1,
            std=0.1,
        ),
        lambda model: model(IMAGE),
    ),
    "ImageEncoder": Recipe(
        ide.ImageEncoder, image_parts() | {"head": ide.NoHead()}, lambda model: model(IMAGE)
    ),
    "TextEncoder": Recipe(
        ide.TextEncoder,
        dict(
            embedding=jnp.ones((VOCABULARY, WIDTH)),
            positions=jnp.ones((CONTEXT, WIDTH)),
            segments=jnp.ones((2, WIDTH)),
            **encoder_parts(),
            first_position=0,
            context=CONTEXT,
        ),
        lambda model: model(TOKENS_OF_TEXT),
    ),
    "SpeechEncoder": Recipe(
        ide.SpeechEncoder,
        dict(
            first_convolution=ide.TokenConvolution(2, WIDTH, key=KEY),
            second_convolution=ide.TokenConvolution(WIDTH, WIDTH, stride=2, key=KEY),
            positions=jnp.zeros((TOKENS, WIDTH)),
            **encoder_parts(),
        ),
        lambda model: model(SOUND),
    ),
    "EncoderDecoder": Recipe(
        ide.EncoderDecoder,
        dict(encoder=speech_encoder(), decoder=listener().decoder),
        lambda model: model(ide.SourceAndText(SOUND, TOKENS_OF_TEXT)),
    ),
    "TokenConvolution": Recipe(
        ide.TokenConvolution,
        dict(features_in=WIDTH, features_out=2, key=KEY, width=3, stride=1, std=0.1),
        lambda convolution: convolution(U0),
    ),
    "NoHead": Recipe(ide.NoHead, {}, headed),
    "MeanHead": Recipe(ide.MeanHead, {"classifier": linear(WIDTH, 3)}, headed),
    "PrefixHead": Recipe(ide.PrefixHead, {"classifiers": (linear(WIDTH, 3),)}, headed),
    "PrefixAndMeanHead": Recipe(
        ide.PrefixAndMeanHead, {"classifier": linear(2 * WIDTH, 3)}, headed
    ),
    "CachedDecoder": Recipe(
        ide.CachedDecoder,
        dict(model=language_model(), tokens=4),
        lambda decoder: decoder.prefill(TOKENS_OF_TEXT)[0],
    ),
    "why_not_cached": Recipe(ide.why_not_cached, {"model": language_model()}, lambda _: ()),
    "generate": Recipe(
        ide.generate,
        dict(
            model=language_model(),
            prompt=TOKENS_OF_TEXT,
            length=2,
            key=KEY,
            temperature=1.0,
            top_k=2,
            top_p=0.5,
        ),
        lambda tokens: tokens,
    ),
    "generate_greedy": Recipe(
        ide.generate_greedy,
        dict(model=listener(), source=SOUND, prompt=TOKENS_OF_TEXT, length=1, end=0),
        lambda tokens: tokens,
    ),
    "sentence_embedding": Recipe(
        ide.sentence_embedding, dict(model=text_encoder(), text=TOKENS_OF_TEXT), lambda x: x
    ),
    "Text": Recipe(
        ide.Text,
        dict(
            tokens=TOKENS_OF_TEXT,
            mask=jnp.array([True, True, False]),
            segments=jnp.zeros(TOKENS, int),
        ),
        lambda text: text_encoder()(text),
    ),
    "Encoded": Recipe(
        ide.Encoded,
        dict(states=U0, weights=jnp.ones(TOKENS)),
        lambda encoded: listener()(ide.SourceAndText(encoded, TOKENS_OF_TEXT)),
    ),
    "SourceAndText": Recipe(
        ide.SourceAndText,
        dict(source=SOUND, text=TOKENS_OF_TEXT),
        lambda inputs: listener()(inputs),
    ),
}

FILES = {
    "load_pretrained": Recipe(
        ide.load_pretrained, dict(path="no/such/folder", dtype=None), lambda _: ()
    ),
    "save_pretrained": Recipe(
        ide.save_pretrained,
        dict(model=language_model(), path="no/such/file.npz", like="no/such/folder"),
        lambda _: (),
    ),
    "load_model": Recipe(ide.load_model, dict(path="no/such/run", overrides=()), lambda _: ()),
    "load_run": Recipe(ide.load_run, {"path": Path("no/such/run")}, lambda _: ()),
}

RECIPES = {**OPERATORS, **CONSTRAINTS, **CONTROLS, **EQUATIONS, **SCHEMES, **MODELS, **FILES}
