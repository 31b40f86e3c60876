"""The token integral on a ring of 4 of 8 virtual devices, for a process of its own: how far it
and its gradients are from plain operations, and the memory that it takes on each device."""

import json
import os


os.environ["NPROC"] = "32"  # threads; see tests/training/on_meshes.py
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ide_transformer as ide
from ide_transformer.equation import integrate
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


def plain(query, key, value, weights, bias, inside):
    """Two samples of as many heads of queries as of keys, twice; in plain operations."""
    key, value = (jnp.repeat(x, 2, axis=-2) for x in (key, value))
    s = jnp.einsum("bxhd,bzhd->bhxz", query, key) / np.sqrt(query.shape[-1]) + bias[None]
    gamma = jnp.where(inside[None, None], jnp.exp(s), 0) * weights[None, None, None]
    gamma = gamma / jnp.sum(gamma, axis=-1, keepdims=True)
    return jnp.einsum("bhxz,bzhd->bxhd", gamma, value)


def differences():
    """By region, whether keys travel, and the largest difference of the value, of the gradients
    with respect to queries, keys, values, weights and bias, and of the derivative of one."""
    draw = np.random.default_rng(0)
    points = np.sort(draw.uniform(size=TOKENS))
    query, key, value = (draw.normal(size=(2, TOKENS, heads, 6)) for heads in (4, 2, 2))
    weights, bias = draw.uniform(0.5, 2.0, TOKENS), draw.normal(size=(4, TOKENS, TOKENS))
    arguments = tuple(map(jnp.asarray, (query, key, value, weights, bias)))
    apart, found = points[:, None] - points[None, :], {}
    for name, (region, period) in REGIONS.items():
        around = np.minimum(abs(apart), (period or np.inf) - abs(apart))
        inside = np.ones((TOKENS, TOKENS), bool)
        if isinstance(region, ide.Volterra):
            inside = (apart >= 0) & (apart < (region.window or np.inf))
        if isinstance(region, ide.Neighborhood):
            inside = around < region.radius

        def ours(query, key, value, weights, bias, region=region, period=period):
            around = None if period is None else (period,)
            domain = ide.TokenDomain(jnp.asarray(points)[:, None], weights, period=around)
            return integrate(query, key, value, domain, domain, region, bias)

        def theirs(*arguments, inside=inside):
            return plain(*arguments, inside)

        def derivatives(f):
            def total(*x):
                return jnp.sum(jnp.sin(f(*x)))

            first = jax.value_and_grad(total, argnums=(0, 1, 2, 3, 4))
            rate = jnp.cos(arguments[0])
            return lambda query, *rest: (
                first(query, *rest),
                jax.jvp(lambda q: jax.grad(total)(q, *rest), (query,), (rate,))[1],
            )

        with jax.set_mesh(mesh_of(2, 4)):
            program = jax.jit(derivatives(ours))
            travels = "collective_permute" in program.lower(*arguments).as_text()
            result = jax.device_get(program(*arguments))
        expected = jax.jit(derivatives(theirs))(*arguments)
        pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
        found[name] = [travels, max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs)]
    return found


def memory(devices):
    """Temporary bytes on each device of the integral and its gradient, in blocks of 32."""
    tokens, region = 2048, ide.Volterra()
    domain = ide.TokenDomain(jnp.linspace(0.0, 1.0, tokens)[:, None])

    def total(query, key, value):
        quadrature = Ring(region, Stream(region, 32, in_order=False))
        integrand, _ = prepare(query, key, value, domain, domain, None)
        mean = token_mean(integrand, quadrature).mean
        return jnp.sum(jnp.sin(mean))

    mesh = mesh_of(1, devices)
    where = NamedSharding(mesh, PartitionSpec(None, "sequence"))
    x = jax.ShapeDtypeStruct((1, tokens, 1, 128), jnp.float32, sharding=where)
    with jax.set_mesh(mesh):
        gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)), out_shardings=(where,) * 3)
        return gradient.lower(x, x, x).compile().memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    falls = memory(2) / memory(8)
    jax.config.update("jax_enable_x64", True)
    # Compiled in less time.
    jax.config.update("jax_disable_most_optimizations", True)
    print(json.dumps([falls, differences()]))
