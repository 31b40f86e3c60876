"""The cost of a step of training of emulators, beside networks of APEBench."""

import argparse
import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from emulators import Cell, network_of
from ide_transformer.packages import require

from .shared.command import Command
from .shared.timing import Rounds, Rows, measured


def emulators(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """A step of training of emulators, beside networks of APEBench. Models have the names of
    scripts/emulators.py; functions are random. Rows of `measured` with `points`, `batch` and
    `parameters`."""
    require("apebench", "emulators", "Emulators are trained by")
    programs, parameters = {}, {}
    functions = jax.random.normal(jax.random.key(0), (2, options.batch, 1, options.points))
    optimizer = optax.adam(1e-3)

    def step(static, weights, state, before, after):
        def loss(weights):
            network = eqx.combine(weights, static)
            return jnp.mean((jax.vmap(network)(before) - after) ** 2)

        value, slope = jax.value_and_grad(loss)(weights)
        updates, state = optimizer.update(slope, state, weights)
        return value, optax.apply_updates(weights, updates), state

    for name in options.models.split(","):
        cell = Cell(f"diff_burgers:num_points={options.points}", name, 0, 1000, "one")
        network = network_of(cell, jax.random.PRNGKey(0))
        weights, static = eqx.partition(network, eqx.is_inexact_array)
        parameters[name] = sum(x.size for x in jax.tree.leaves(weights))
        given = weights, optimizer.init(weights), *functions
        programs[name] = ft.partial(step, static), given
    rows = measured(programs, rounds, points=options.points, batch=options.batch)
    return [{**row, "parameters": parameters[row["name"]]} for row in rows]


COMMAND = Command(
    name="emulators",
    example="emulators/local,res --json emulators.json",
    rounds=20,
    measure=emulators,
    options=dict(models="emulators/local,emulators/waves,res,fno", points=160, batch=20),
)
