"""A page about a model read as a controlled system."""

import functools as ft
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .. import dynamics
from ..equation import Equation, TokenDomain
from ..errors import InputError
from ..figures import Curve, Part, draw_panels, write_page
from ..models import Model
from ..reporting import Row, Terminal, write_json
from ..training import load_model
from ..training.evaluation import at_least_one
from .depth_problem import Problem, make_problem
from .readings import GROUPS, compare_readings


# Samples of which spectra are computed; each takes many products with Jacobians.
_SPECTRA, _EXPONENTS = 2, 8
# Tokens of a block along each axis, for heads on a coarser grid; the loss is measured with the
# middle one.
_BLOCKS = (2, 4, 8)


def study_dynamics(
    path: str, folder: Path, *, samples: int, predict: bool = False, trust: bool = False
) -> Sequence[Row]:
    """Reads the run or checkpoint in `path` as a controlled system, on so many held-out
    samples, and writes `dynamics.html` and `dynamics.json` into `folder`. A row for each layer:

    - `stationarity, …`, `hamiltonian, …`: of each operator those of `Costates`, of the mean
      loss.
    - `costate`, `state`: the root mean squares.
    - `log_norm`: the mean over the first samples.
    - `cosine`, `rank`, `clusters`: see `Clustering`; the mean over samples, without padding.

    If there are heads and the tokens are on a grid, a row for each head is in the files too:

    - `distance`, `share at …`: see `Distances`.
    - `predicted error, 4`, `error, 4`: see `CoarseHeads`, on blocks of so many tokens.
    - `change of the loss, 4`: where that head alone is computed so.

    With `predict` also Spearman's correlations of readings with the changes of the loss that
    they might predict, see `compare_readings`.
    """
    at_least_one("samples", samples)
    if predict and samples < GROUPS:
        raise InputError(
            f"samples={samples}: correlations need {GROUPS} groups of samples; give "
            f"{GROUPS} or more, or leave predict out."
        )
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
    result["exponents"] = exponents.tolist()
    parts = _parts(names, rows, exponents, together)
    sizes = _block_sizes(equation)
    if sizes:
        say("distances of heads, and each on a coarser grid")
        result["heads"] = _heads(model, problem, sizes)
        result["waves"] = _waves(found.states, equation.domain)
        parts[-1:-1] = [_scales(result["heads"], result["waves"])]
    if predict:
        result["predictions"] = compare_readings(
            model, problem, _middle(sizes) if sizes else None, say
        )
        parts[-1:-1] = [_predictions(result["predictions"])]
    write_json(folder / "dynamics.json", result)
    about = f"{samples} held-out samples; loss: {problem.loss}"
    write_page(folder / "dynamics.html", f"{path} as a controlled system", about, parts)
    return rows


def _block_sizes(equation: Equation) -> list[int]:
    """Blocks that are smaller than the grid of tokens; none without heads or a grid."""
    heads = dynamics.heads_of(equation.control(0.0))
    longest = max(equation.domain.grid or (0,)) if heads else 0
    return [size for size in _BLOCKS if size < longest]


def _middle(sizes: Sequence[int]) -> int:
    return sizes[len(sizes) // 2]


def _heads(model: Model, problem: Problem, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each head, see `study_dynamics`."""
    inputs, middle = problem.held_out, _middle(sizes)
    apart = dynamics.distances(model, inputs)
    coarse = {size: dynamics.coarse_heads(model, inputs, size) for size in sizes}

    @eqx.filter_jit
    def losses(model: Model, chosen: ArrayLike) -> Array:
        changed = dynamics.with_coarse_heads(model, middle, chosen)
        return jnp.mean(problem.losses(changed(inputs)))

    none = np.zeros(apart.mean.shape, bool)
    native, rows = losses(model, none), []
    for layer, head in np.ndindex(none.shape):
        alone = none.copy()
        alone[layer, head] = True
        shares = zip(apart.bands, apart.spectrum[layer, head], strict=True)
        rows.append(
            {
                "layer": layer,
                "head": head,
                "distance": float(apart.mean[layer, head]),
                **{f"share at {band:.3g}": float(share) for band, share in shares},
                **{
                    f"predicted error, {k}": float(x.predicted[layer, head])
                    for k, x in coarse.items()
                },
                **{f"error, {k}": float(x.error[layer, head]) for k, x in coarse.items()},
                f"change of the loss, {middle}": float(losses(model, alone) - native),
            }
        )
    return rows


def _waves(states: Array, domain: TokenDomain) -> list[dict[str, Any]]:
    """A row for each knot: the shares of waves over tokens by their length, the mean over
    samples."""
    shares = np.asarray(dynamics.waves(states, domain))
    shares = shares.mean(axis=tuple(range(1, shares.ndim - 1)))
    names = [*(f"length {2**k}" for k in range(1, shares.shape[-1])), "mean"]
    return [
        {"layer": layer, **{name: float(x) for name, x in zip(names, knot, strict=True)}}
        for layer, knot in enumerate(shares)
    ]


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


def _predictions(rows: Sequence[Row]) -> Part:
    return Part(
        "What the readings predict",
        "Spearman's correlation of readings with what they might predict, and 95 % intervals "
        "from draws of groups of samples and of layers, heads or samples. Loss: its change.",
        rows=rows,
    )


def _scales(heads: Sequence[Mapping[str, Any]], knots: Sequence[Mapping[str, Any]]) -> Part:
    layers = sorted({row["layer"] for row in heads})

    def columns(beginning: str) -> list[str]:
        return [name for name in heads[0] if name.startswith(beginning)]

    def by_head(name: str) -> list[Curve]:
        return [
            Curve(f"head {head}", layers, [x[name] for x in heads if x["head"] == head])
            for head in sorted({row["head"] for row in heads})
        ]

    def mean(name: str, layer: int) -> float:
        return float(np.mean([row[name] for row in heads if row["layer"] == layer]))

    bands = columns("share at ")
    spectra = [
        Curve(f"layer {layer}", range(len(bands)), [mean(name, layer) for name in bands])
        for layer in layers
    ]
    errors = {
        title: [
            Curve(f"blocks of {name.split()[-1]}", layers, [mean(name, x) for x in layers])
            for name in columns(title)
        ]
        for title in ("predicted error", "error")
    }
    (change,) = columns("change of the loss")
    lengths = [name for name in knots[0] if name != "layer"]
    waves = [Curve(x, range(len(knots)), [row[x] for row in knots]) for x in lengths]
    edges = ", ".join(name.removeprefix("share at ") for name in bands)
    looks: Any = dict(x="layer", marker="o")
    return Part(
        "Scales",
        "How far heads look: the mean distance, and the shares of the mass in bands that begin "
        f"at the distances {edges} (the mean over heads). The error of the outputs of heads "
        "whose keys and values are means over blocks of tokens, as their kernel predicts it "
        "and as it is, and the change of the loss where one head alone is computed so. The "
        "shares of the energy of the state in waves over tokens, by their length in tokens.",
        {
            "mean distance": draw_panels(
                {"": by_head("distance")}, y="distance", log="y", **looks
            ),
            "spectrum over distance": draw_panels(
                {"": spectra}, x="band of distance", y="share of the mass", marker="o"
            ),
            "heads on coarser grids": draw_panels(errors, y="relative error", **looks),
            change: draw_panels({"": by_head(change)}, y=change, **looks),
            "waves over tokens": draw_panels({"": waves}, y="share of the energy", **looks),
        },
    )


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
