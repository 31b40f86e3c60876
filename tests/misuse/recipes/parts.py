"""Recipes of operators, constraints and controls."""

from functools import cache

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp

import ide_transformer as ide

from .small import ATTENTION, CONTROL, DOMAIN, KEY, U0, WIDTH, Recipe, applied, block


def evaluated(control):
    return ide.solve(ide.Equation(control, ide.Free(), DOMAIN), U0, solver=ide.LieTrotter()).u1


def on_sphere(constraint):
    return constraint.project(U0), constraint.tangent(U0, U0)


def operator(name: str, **arguments) -> Recipe:
    return Recipe(getattr(ide, name), arguments, applied)


def constraint(name: str, **arguments) -> Recipe:
    return Recipe(getattr(ide, name), arguments, on_sphere)


def on_circle(operator):
    return operator(U0, ide.TokenDomain.periodic(len(U0)))


def with_source(operator):
    return operator.with_source(U0)(U0, DOMAIN)


def attended(positions):
    attention = ide.Attention(WIDTH, 2, key=KEY, causal=True, positions=positions)
    return attention(U0, DOMAIN)


@cache
@eqx.filter_jit
def stacked(number):
    return eqx.filter_vmap(block)(jax.random.split(KEY, number))


def two_domains(operator):
    source = ide.Sourced(ide.Tied((operator,), 1), U0, DOMAIN)
    equation = ide.Equation(source, ide.Free(), DOMAIN)
    return ide.solve(equation, U0, solver=diffrax.Euler()).u1


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
    "ConvolutionalAttention": Recipe(
        ide.ConvolutionalAttention,
        dict(
            features=WIDTH,
            heads=2,
            key=KEY,
            width=1,
            stride=1,
            dimension=1,
            statistics=True,
            normalization=ide.Free(),
            bias=True,
            output_bias=True,
            std=0.1,
            output_std=0.1,
        ),
        applied,
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
    "LayerDrop": operator("LayerDrop", operator=ide.Damping(1.0), rate=0.5, key=KEY),
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
    **{
        name: operator(
            name,
            features=WIDTH,
            heads=2,
            key=KEY,
            normalization=ide.Free(),
            bias=True,
            std=0.1,
            output_std=0.1,
            **options,
        )
        for name, options in {
            "GalerkinAttention": dict(
                key_normalization=ide.Free(), value_normalization=ide.Free()
            ),
            "GaussianAttention": dict(causal=True),
            "LinearAttention": dict(causal=True),
            "SinkhornAttention": dict(iterations=2),
        }.items()
    },
    "Advection": Recipe(ide.Advection, dict(velocity=jnp.ones(1)), on_circle),
    "DifferenceAdvection": operator("DifferenceAdvection", velocity=jnp.ones(1)),
    "DifferenceDiffusion": operator("DifferenceDiffusion", rate=0.5),
    "FourierIntegral": Recipe(
        ide.FourierIntegral,
        dict(
            features=WIDTH,
            key=KEY,
            modes=2,
            dimension=1,
            activation=ide.gelu,
            normalization=ide.Free(),
            bias=True,
            std=0.1,
            output_std=0.1,
        ),
        on_circle,
    ),
    "Convolution": operator(
        "Convolution",
        features=WIDTH,
        key=KEY,
        width=3,
        dimension=1,
        depthwise=True,
        causal=True,
        normalization=ide.Free(),
        bias=True,
        std=0.1,
    ),
    "Injection": operator("Injection", rate=0.5, source=U0),
    "Relaxation": operator("Relaxation", rate=1.0, source=U0),
    "LayerNormScaling": operator(
        "LayerNormScaling",
        operator=ide.FeedForward(WIDTH, normalization=ide.LayerNorm(), key=KEY),
    ),
    "Scaled": operator("Scaled", operator=ide.Damping(1.0), rate=0.5),
    "StableDamping": operator("StableDamping", rate=0.5),
    "SourcedAttention": Recipe(
        ide.SourcedAttention, dict(attention=ATTENTION, key=KEY, std=0.1), with_source
    ),
    "Fredholm": Recipe(ide.Fredholm, {}, lambda region: region.meets((0, 1), (0, 1))),
    "Volterra": Recipe(
        ide.Volterra, {"window": 2}, lambda region: region.indicator(DOMAIN, DOMAIN)
    ),
    "Neighborhood": Recipe(
        ide.Neighborhood, {"radius": 2.0}, lambda region: region.indicator(DOMAIN, DOMAIN)
    ),
    "NoPositions": Recipe(ide.NoPositions, {}, attended),
    "Rotary": Recipe(ide.Rotary, dict(base=100.0, features=2, stretch=(1.0,)), attended),
    "LinearBias": Recipe(ide.LinearBias, dict(heads=2, scale=1.0), attended),
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
    "Functional": Recipe(
        ide.Functional,
        dict(
            control=CONTROL,
            space=ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(WIDTH)),
        ),
        evaluated,
    ),
    "FeatureDomain": Recipe(
        ide.FeatureDomain,
        dict(features=WIDTH, rule="gauss_legendre"),
        lambda domain: domain.weights,
    ),
    "FunctionSpace": Recipe(
        ide.FunctionSpace,
        dict(basis=ide.Cosine(), modes=WIDTH, domain=ide.FeatureDomain(WIDTH)),
        lambda space: space.features.values,
    ),
    "Warped": Recipe(ide.Warped, dict(waves=2), lambda basis: basis(jnp.linspace(0, 1, 5), 3)),
    **{
        name: Recipe(getattr(ide, name), {}, lambda basis: basis(jnp.linspace(0, 1, 5), 3))
        for name in ("Cosine", "Legendre", "Nodal", "Waves")
    },
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
