"""The token integral on a ring of 4 of 8 virtual devices, for a process of its own: how far it
and its gradients are from plain operations, and the memory that it takes on each device."""

import json
import os
import sys


os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"]
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ide_transformer as ide
from ide_transformer.equation import Domains, integrate
from ide_transformer.equation.operators.quadrature.blocks import Stream
from ide_transformer.equation.operators.quadrature.integrate import prepare
from ide_transformer.equation.operators.quadrature.ring import Ring
from ide_transformer.equation.operators.quadrature.token_mean import token_mean


TOKENS = 24
# With the period of the domain.
REGIONS = {
    "past": (ide.Volterra(), None),
    "window": (ide.Volterra(window=0.3), None),
    "all": (ide.Fredholm(), None),
    "near": (ide.Neighborhood(0.3), None),
    "near on a circle": (ide.Neighborhood(0.3), 1.0),
}


def mesh_of(data, sequence):
    devices = jax.devices()[: data * sequence]
    types = (AxisType.Auto,) * 2
    return jax.make_mesh((data, sequence), ("data", "sequence"), types, devices=devices)


def plain(query, key, value, weights, bias, region, points, period):
    """Two samples of as many heads of queries as of keys, twice; in plain operations."""
    key, value = (jnp.repeat(x, 2, axis=-2) for x in (key, value))
    s = jnp.einsum("bxhd,bzhd->bhxz", query, key) / np.sqrt(query.shape[-1]) + bias[None]
    inside = np.ones((TOKENS, TOKENS), bool)
    apart = points[:, None] - points[None, :]
    if isinstance(region, ide.Volterra):
        inside = (apart >= 0) & (apart < (region.window or np.inf))
    if isinstance(region, ide.Neighborhood):
        distance = np.abs(apart)
        inside = np.minimum(distance, (period or np.inf) - distance) < region.radius
    gamma = jnp.where(inside[None, None], jnp.exp(s), 0) * weights[None, None, None]
    gamma = gamma / jnp.sum(gamma, axis=-1, keepdims=True)
    return jnp.einsum("bhxz,bzhd->bxhd", gamma, value)


def differences():
    """By region, the largest difference of the value, of the gradients with respect to queries,
    keys, values, weights and bias, and of the derivative of one of them."""
    draw = np.random.default_rng(0)
    points = np.sort(draw.uniform(size=TOKENS))
    query, key, value = (draw.normal(size=(2, TOKENS, heads, 6)) for heads in (4, 2, 2))
    weights, bias = draw.uniform(0.5, 2.0, TOKENS), draw.normal(size=(4, TOKENS, TOKENS))
    arguments = tuple(map(jnp.asarray, (query, key, value, weights, bias)))
    found = {}
    for name, (region, period) in REGIONS.items():

        def ours(query, key, value, weights, bias, region=region, period=period):
            around = None if period is None else (period,)
            domain = ide.TokenDomain(jnp.asarray(points)[:, None], weights, period=around)
            domains = Domains(domain, domain)
            return jnp.sum(jnp.sin(integrate(query, key, value, domains, region, bias)))

        def theirs(*arguments, region=region, period=period):
            return jnp.sum(jnp.sin(plain(*arguments, region, points, period)))

        def derivatives(f):
            first = jax.value_and_grad(f, argnums=(0, 1, 2, 3, 4))

            def along(query):
                return jax.grad(f)(query, *arguments[1:])

            rate = jnp.cos(arguments[0])
            return lambda *x: (first(*x), jax.jvp(along, x[:1], (rate,))[1])

        with jax.set_mesh(mesh_of(2, 4)):
            program = jax.jit(derivatives(ours))
            travels = "collective_permute" in program.lower(*arguments).as_text()
            result = jax.device_get(program(*arguments))
        expected = jax.jit(derivatives(theirs))(*arguments)
        pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
        found[name] = [travels, max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)]
    return found


def memory():
    """Temporary bytes on each device of the integral and its gradient, in blocks of 32, by the
    number of devices."""
    tokens, region = 2048, ide.Volterra()
    domain = ide.TokenDomain(jnp.linspace(0.0, 1.0, tokens)[:, None])

    def total(query, key, value):
        quadrature = Ring(region, Stream(region, 32, in_order=False))
        integrand, _ = prepare(query, key, value, domain, None)
        mean = token_mean(integrand, Domains(domain, domain), quadrature).mean
        return jnp.sum(jnp.sin(mean))

    found = {}
    for devices in (2, 8):
        mesh = mesh_of(1, devices)
        where = NamedSharding(mesh, PartitionSpec(None, "sequence"))
        x = jax.ShapeDtypeStruct((1, tokens, 1, 128), jnp.float32, sharding=where)
        with jax.set_mesh(mesh):
            gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)), out_shardings=(where,) * 3)
            analysis = gradient.lower(x, x, x).compile().memory_analysis()
        found[devices] = analysis.temp_size_in_bytes
    return found


if __name__ == "__main__":
    if sys.argv[1] == "memory":
        print(json.dumps(memory()))
    else:
        jax.config.update("jax_enable_x64", True)
        print(json.dumps(differences()))
