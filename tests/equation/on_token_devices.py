"""The token integral divided among 4 of 8 virtual devices, for a process of its own: how far it
and its derivatives are from those on one device."""

import json
import os


os.environ["NPROC"] = "32"  # threads; see tests/training/on_meshes.py
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

import ide_transformer as ide
from ide_transformer.equation import integrate


POINTS = np.sort(np.random.default_rng(0).uniform(size=24))
REGIONS = {"past": ide.equation.Volterra(), "window": ide.equation.Volterra(window=0.3)}


def differences():
    """By region, whether devices divide the queries, and the largest difference to one device:
    of the value, of the gradients with respect to queries, keys, values, weights and bias, and
    of the derivative of one."""
    draw, differences_by_region = np.random.default_rng(1), {}
    inputs = (draw.normal(size=(2, 24, heads, 6)) for heads in (4, 2, 2))
    rest = draw.uniform(0.5, 2.0, 24), draw.normal(size=(4, 24, 24))
    arguments = tuple(map(jnp.asarray, (*inputs, *rest)))
    types = (AxisType.Auto,) * 2
    for name, region in REGIONS.items():

        def total(query, key, value, weights, bias, region=region):
            domain = ide.TokenDomain(jnp.asarray(POINTS)[:, None], weights)
            mean = integrate(query, key, value, domain, domain, region, bias)
            return jnp.sum(jnp.sin(mean)), mean

        def derivatives(query, *rest, total=total):
            first = jax.value_and_grad(total, argnums=(0, 1, 2, 3, 4), has_aux=True)
            slope = lambda q: jax.grad(total, has_aux=True)(q, *rest)[0]  # noqa: E731
            return first(query, *rest), jax.jvp(slope, (query,), (jnp.cos(query),))[1]

        # On one device the integral is tested against NumPy.
        expected = jax.device_get(jax.jit(derivatives)(*arguments))
        with jax.set_mesh(jax.make_mesh((2, 4), ("data", "sequence"), types)):
            # A function of its own: a program is kept by function.
            program = jax.jit(lambda *x, f=derivatives: f(*x))
            text = program.lower(*arguments).as_text()
            result = jax.device_get(program(*arguments))
        is_divided = "manual_computation" in text
        pairs = zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True)
        differences_by_region[name] = [
            is_divided,
            max(float(np.max(np.abs(a - b))) for a, b in pairs),
        ]
    return differences_by_region


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    # Compiled in less time.
    jax.config.update("jax_disable_most_optimizations", True)
    print(json.dumps(differences()))
