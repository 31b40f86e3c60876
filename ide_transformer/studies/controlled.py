"""A page about a model read as a controlled system."""

import functools as ft
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import dynamics
from ..equation import TokenDomain
from ..figures import Curve, Part, draw_panels, write_page
from ..reporting import Row, Terminal, write_json
from ..training import load_model
from ..training.evaluation import at_least_one
from .depth_problem import make_problem


# Samples of which spectra are computed; each takes many products with Jacobians.
_SPECTRA, _EXPONENTS = 2, 8


def study_dynamics(
    path: str, folder: Path, *, samples: int, trust: bool = False
) -> Sequence[Row]:
    """Reads the run or checkpoint in `path` as a controlled system, on so many held-out
    samples, and writes `dynamics.html` and `dynamics.json` into `folder`. A row for each layer:

    - `stationarity, …`, `hamiltonian, …`: of each operator those of `Costates`, of the mean
      loss.
    - `costate`, `state`: the root mean squares.
    - `log_norm`: the mean over the first samples.
    - `cosine`, `rank`, `clusters`: see `Clustering`; the mean over samples, without padding.
    """
    at_least_one("samples", samples)
    console = Terminal()
    say = ft.partial(console.print, markup=False)
    loaded = load_model(path, trust=trust)
    model, problem = loaded.model, make_problem(loaded, 1, samples)
    inputs = problem.held_out
    say(f"costates of the loss ({problem.loss}), {samples} samples")
    found = dynamics.costates(model, inputs, lambda y: jnp.mean(problem.losses(y)))
    equation, _ = model.initial_value_problem(inputs)
    kinds = [type(x.innermost).__name__ for x in equation.control(0.0)]
    names = [f"{kind} {i}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]
    few = jax.tree.map(lambda x: x[:_SPECTRA], inputs)
    say(f"log-norms and exponents, {min(samples, _SPECTRA)} samples")
    norms = dynamics.log_norms(model, few).mean(0)
    exponents = dynamics.stretching(model, few, _EXPONENTS).mean(0)
    together = _clustering(found.states, equation.domain)
    rows = [
        {
            "layer": layer,
            **_by_operator("stationarity", names, found.stationarity[layer]),
            **_by_operator("hamiltonian", names, found.hamiltonian[layer]),
            "costate": _size(found.costates[layer]),
            "state": _size(found.states[layer]),
            "log_norm": float(norms[layer]),
            **{name: float(x[layer]) for name, x in together.items()},
        }
        for layer in range(len(norms))
    ]
    result = {"path": str(path), "samples": samples, "loss": problem.loss, "layers": rows}
    write_json(folder / "dynamics.json", {**result, "exponents": exponents.tolist()})
    parts = _parts(names, rows, exponents, together)
    about = f"{samples} held-out samples; loss: {problem.loss}"
    write_page(folder / "dynamics.html", f"{path} as a controlled system", about, parts)
    return rows


def _by_operator(kind: str, names: Sequence[str], values: Array) -> dict[str, float]:
    return {f"{kind}, {name}": float(x) for name, x in zip(names, values, strict=True)}


def _size(x: Array) -> float:
    return float(jnp.sqrt(jnp.mean(x**2)))


def _clustering(
    states: Float[Array, "knots samples tokens features"], domain: TokenDomain
) -> dict[str, np.ndarray]:
    """The mean over samples at each knot; tokens of weight zero do not count."""
    weights = np.ones(states.shape[2]) if domain.weights is None else np.asarray(domain.weights)
    counted = np.broadcast_to(weights > 0, states.shape[1:3])
    each = [
        dynamics.clustering(states[:, sample, jnp.asarray(np.flatnonzero(seen))])
        for sample, seen in enumerate(counted)
    ]
    names = ("cosine", "rank", "clusters")
    return {x: np.mean([np.asarray(getattr(one, x)) for one in each], axis=0) for x in names}


def _parts(
    names: Sequence[str], rows: Sequence[Mapping[str, Any]], exponents: Any, together: Any
) -> list[Part]:
    layers = [row["layer"] for row in rows]

    def of_operators(kind: str) -> list[Curve]:
        return [Curve(x, layers, [row[f"{kind}, {x}"] for row in rows]) for x in names]

    def drawn(panels: Mapping[str, list[Curve]], y: str, log: Any = "") -> Any:
        return draw_panels(panels, x="layer", y=y, log=log, marker="o")

    knots = [*layers, len(layers)]
    sizes = [Curve(x, layers, [row[x] for row in rows]) for x in ("costate", "state")]
    growth = [Curve("log-norm", layers, [row["log_norm"] for row in rows])]
    return [
        Part(
            "What the loss feels",
            "The slope of the Hamiltonian in the weights of each operator: where it is large, "
            "a small change of these weights changes the loss most.",
            {"stationarity": drawn({"": of_operators("stationarity")}, "|∂H/∂θ|", "y")},
        ),
        Part(
            "Costates",
            "⟨p, A_i(u)⟩ for each operator; their sum is the Hamiltonian, the gain of the loss "
            "if the layer were longer. And the root mean square of the costate p and of the "
            "state u.",
            {
                "Hamiltonian": drawn({"": of_operators("hamiltonian")}, "⟨p, A_i(u)⟩"),
                "sizes": drawn({"": sizes}, "root mean square", "y"),
            },
        ),
        Part(
            "How differences grow",
            "The logarithmic norm of the field: below zero the flow contracts. Over the whole "
            "depth small differences grow by the exponents "
            f"{', '.join(f'{x:.2f}' for x in exponents)} at most, per layer.",
            {"log-norm": drawn({"": growth}, "log-norm")},
        ),
        Part(
            "How tokens come together",
            "The mean cosine of different tokens, the effective rank of a sample, and the "
            "clusters of tokens with cosines above 0.95.",
            {
                "cosine": drawn({"": [Curve("cosine", knots, together["cosine"])]}, "cosine"),
                "rank and clusters": drawn(
                    {"": [Curve(x, knots, together[x]) for x in ("rank", "clusters")]},
                    "of a sample",
                ),
            },
        ),
        Part("Numbers", rows=rows),
    ]
