"""Reads a trained model as a controlled system."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from jaxtyping import Array

from ide_transformer import dynamics
from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.contrib.depth_problem import make_problem
from ide_transformer.reporting import Row, write_json
from ide_transformer.training import load_model


@checked
def study_dynamics(
    path: str, folder: Path, *, samples: PositiveInt, trust: bool = False
) -> Sequence[Row]:
    """Reads the run or checkpoint in `path` as a controlled system, on held-out samples, and
    writes `dynamics.json` into `folder`. A row for each layer:

    - `stationarity, …`, `hamiltonian, …`: the `Costates` of each operator, for the mean loss.
    - `costate`, `state`: root mean squares where the layer begins.
    """
    loaded = load_model(path, trust=trust)
    problem = make_problem(loaded, 1, samples)
    costates = dynamics.costates(
        loaded.model, problem.held_out, lambda y: jnp.mean(problem.losses(y))
    )
    equation, _ = loaded.model.initial_value_problem(problem.held_out)
    kinds = [type(x.innermost).__name__ for x in equation.control(0.0)]
    names = [f"{kind} {i}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]
    columns = {"costate": _size(costates.costates), "state": _size(costates.states)}
    for i, name in enumerate(names):
        columns[f"stationarity, {name}"] = costates.stationarity[:, i]
        columns[f"hamiltonian, {name}"] = costates.hamiltonian[:, i]
    rows = [
        {"layer": n, **{name: float(column[n]) for name, column in columns.items()}}
        for n in range(len(costates.hamiltonian))
    ]
    write_json(folder / "dynamics.json", {"path": path, "loss": problem.loss, "layers": rows})
    return rows


def _size(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(x**2, axis=range(1, x.ndim)))
