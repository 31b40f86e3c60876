"""Writes a page about a model read as a controlled system."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from ide_transformer import dynamics
from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.contrib.depth_problem import Problem, make_problem
from ide_transformer.contrib.readings import GROUPS, changes_of_heads, compare_readings
from ide_transformer.contrib.scales import coarse_heads, distances, heads_of, waves
from ide_transformer.contrib.spectra import clustering, log_norms, stretching
from ide_transformer.equation import TokenDomain
from ide_transformer.errors import InputError
from ide_transformer.figures import Curve, Part, draw_panels, write_page
from ide_transformer.models import Model
from ide_transformer.reporting import Row, Terminal, write_json
from ide_transformer.training import load_model


# Samples for spectra; each takes many products with Jacobians.
_SPECTRA = 2
# Tokens of a block along each axis, for heads on a coarser grid; the middle one for the loss.
_BLOCKS = (2, 4, 8)

# Values at layers, knots or heads, by name.
Columns = Mapping[str, Any]


@checked
def study_dynamics(
    path: str, folder: Path, *, samples: PositiveInt, predict: bool = False, trust: bool = False
) -> Sequence[Row]:
    """Reads the run or checkpoint in `path` as a controlled system, on held-out samples, and
    writes `dynamics.json` and `dynamics.html` into `folder`. A row for each layer:

    - `stationarity, …`, `hamiltonian, …`: the `Costates` of each operator, for the mean loss.
    - `costate`, `state`: root mean squares.
    - `log_norm`: the mean over the first samples.
    - `cosine`, `rank`, `clusters`: see `Clustering`; the mean over samples, without padding.

    If there are heads, and the tokens are on a grid, the files have a row for each head:

    - `distance`, `share at …`: see `Distances`.
    - `predicted error, 4`, `error, 4`: see `CoarseHeads`, on blocks of 4 tokens.
    - `change of the loss, 4`: with this head alone on blocks.

    `predict` adds Spearman's correlations of readings with changes of the loss, see
    `compare_readings`.
    """
    loaded = load_model(path, trust=trust)
    model = loaded.model
    problem = make_problem(loaded, 1, samples)
    samples = problem.sizes[1]  # there may be fewer
    if predict and samples < GROUPS:
        raise InputError(
            f"samples={samples}: predict needs {GROUPS} or more, for groups of samples."
        )
    result: dict[str, Any] = {"path": str(path), "samples": samples, "loss": problem.loss}
    say = Terminal().print

    def keep(**found: Any) -> None:
        result.update(found)
        write_json(folder / "dynamics.json", result)

    say(f"costates of the loss ({problem.loss}), {samples} samples")
    found = dynamics.costates(model, problem.held_out, lambda y: jnp.mean(problem.losses(y)))
    equation, _ = model.initial_value_problem(problem.held_out)
    say(f"log-norms and exponents, {min(samples, _SPECTRA)} samples")
    few = jax.tree.map(lambda x: x[:_SPECTRA], problem.held_out)
    norms = log_norms(model, few).mean(0)
    exponents = stretching(model, few, 8).mean(0)
    kinds = [type(x.innermost).__name__ for x in equation.control(0.0)]
    names = [f"{kind} {i}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]
    stationarity = dict(zip(names, found.stationarity.T, strict=True))
    hamiltonian = dict(zip(names, found.hamiltonian.T, strict=True))
    # The last knot belongs to no layer.
    sizes = {"costate": _size(found.costates[:-1]), "state": _size(found.states[:-1])}
    together = _clustering(found.states, equation.domain)
    columns = {
        **{f"stationarity, {name}": x for name, x in stationarity.items()},
        **{f"hamiltonian, {name}": x for name, x in hamiltonian.items()},
        **sizes,
        "log_norm": norms,
        **together,
    }
    rows = [{"layer": n, **_at(columns, n)} for n in range(len(norms))]
    keep(layers=rows, exponents=exponents.tolist())
    parts = [
        Part(
            "What the loss feels",
            "The slope of the Hamiltonian in the weights of each operator: the larger, the "
            "more a small change of these weights changes the loss.",
            {"stationarity": _drawn(stationarity, "|∂H/∂θ|", "y")},
        ),
        Part(
            "Costates",
            "⟨p, A_i(u)⟩ for each operator; their sum is the Hamiltonian, the gain of the loss "
            "if the layer were longer. And the root mean squares of costate p and state u.",
            {
                "Hamiltonian": _drawn(hamiltonian, "⟨p, A_i(u)⟩"),
                "sizes": _drawn(sizes, "root mean square", "y"),
            },
        ),
        Part(
            "How differences grow",
            "The logarithmic norm of the field: below zero the flow contracts. Over all depth "
            "small differences grow at most by the exponents "
            f"{', '.join(f'{x:.2f}' for x in exponents)} per layer.",
            {"log-norm": _drawn({"log-norm": norms}, "log-norm")},
        ),
        Part(
            "How tokens come together",
            "The mean cosine of different tokens, the effective rank of a sample, and the "
            "clusters of tokens with cosines above 0.95.",
            {
                "cosine": _drawn({"cosine": together.pop("cosine")}, "cosine"),
                "rank and clusters": _drawn(together, "of a sample"),
            },
        ),
    ]
    heads = None
    longest = max(equation.domain.grid or (0,))
    # Blocks that are smaller than the grid of tokens.
    blocks = [size for size in _BLOCKS if size < longest]
    if blocks and heads_of(equation.control(0.0)):
        say("distances of heads, and each on a coarser grid")
        middle = blocks[len(blocks) // 2]
        heads = middle, changes_of_heads(model, problem, middle)
        given = model, problem, found.states, equation.domain
        parts.append(_scales(*given, blocks, heads, keep))
    if predict:
        predictions: list[Row] = []
        for row in compare_readings(model, problem, heads):
            predictions.append(row)
            keep(predictions=predictions)
            say("{reading} against {measured}: {correlation:.2f}".format(**row))
        parts.append(
            Part(
                "What the readings predict",
                "Spearman's correlation of readings with changes of the loss or the outputs, "
                "and 95 % intervals from draws of groups of samples and of layers, heads or "
                "samples.",
                rows=predictions,
            )
        )
    parts.append(Part("Numbers", rows=rows))
    about = f"{samples} held-out samples; loss: {problem.loss}"
    write_page(folder / "dynamics.html", f"{path} as a controlled system", about, parts)
    return rows


def _scales(
    model: Model,
    problem: Problem,
    states: Array,
    domain: TokenDomain,
    blocks: Sequence[int],
    heads: tuple[int, np.ndarray],
    keep: Callable[..., None],
) -> Part:
    """Reads heads and waves; for `heads` see `compare_readings`."""
    middle, changes = heads
    apart = distances(model, problem.held_out)
    of_heads: dict[str, Any] = {"distance": apart.mean}
    for number, band in enumerate(apart.bands):
        of_heads[f"share at {band:.3g}"] = apart.spectrum[..., number]
    coarse = {size: coarse_heads(model, problem.held_out, size) for size in blocks}
    of_heads |= {f"predicted error, {size}": x.predicted for size, x in coarse.items()}
    of_heads |= {f"error, {size}": x.error for size, x in coarse.items()}
    change = f"change of the loss, {middle}"
    of_heads[change] = changes.mean(1).reshape(apart.mean.shape)
    # Shares of waves over tokens at each knot, by length.
    shares = np.asarray(waves(states, domain))
    shares = shares.mean(axis=tuple(range(1, shares.ndim - 1)))
    lengths = [*(f"length {2**k}" for k in range(1, shares.shape[-1])), "mean"]
    by_length = dict(zip(lengths, shares.T, strict=True))
    keep(
        heads=[
            {"layer": layer, "head": head, **_at(of_heads, (layer, head))}
            for layer, head in np.ndindex(apart.mean.shape)
        ],
        waves=[{"layer": n, **_at(by_length, n)} for n in range(len(shares))],
    )

    def by_head(name: str, log: Any = "") -> Figure:
        values = {f"head {n}": x for n, x in enumerate(np.transpose(of_heads[name]))}
        return _drawn(values, name, log)

    spectra = {f"layer {n}": x for n, x in enumerate(np.mean(apart.spectrum, axis=1))}
    errors = {}
    for title in ("predicted error", "error"):
        means = {f"blocks of {n}": np.mean(of_heads[f"{title}, {n}"], 1) for n in blocks}
        errors[title] = _curves(means)
    return Part(
        "Scales",
        "How far heads look: the mean distance, and the shares of the mass in bands that begin "
        f"at the distances {', '.join(f'{x:.3g}' for x in apart.bands)} (the mean over heads). "
        "The error of heads whose keys and values are means over blocks of tokens, predicted "
        "by their kernel and measured, and the change of the loss with one such head. "
        "The shares of the energy of the state in waves over tokens, by length in tokens.",
        {
            "mean distance": by_head("distance", "y"),
            "spectrum over distance": _drawn(
                spectra, "share of the mass", x="band of distance"
            ),
            "heads on coarser grids": draw_panels(
                errors, x="layer", y="relative error", marker="o"
            ),
            change: by_head(change),
            "waves over tokens": _drawn(by_length, "share of the energy"),
        },
    )


def _clustering(
    states: Float[Array, "knots samples tokens features"], domain: TokenDomain
) -> dict[str, np.ndarray]:
    """The mean over samples at each knot, without padding."""
    weights = np.ones(states.shape[2]) if domain.weights is None else np.asarray(domain.weights)
    counted = np.broadcast_to(weights > 0, states.shape[1:3])
    each = [
        clustering(states[:, sample, jnp.asarray(np.flatnonzero(seen))])
        for sample, seen in enumerate(counted)
    ]
    names = ("cosine", "rank", "clusters")
    return {x: np.mean([np.asarray(getattr(one, x)) for one in each], axis=0) for x in names}


def _size(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(x**2, axis=range(1, x.ndim)))


def _at(columns: Columns, place: Any) -> dict[str, float]:
    return {name: float(x[place]) for name, x in columns.items()}


def _curves(columns: Columns) -> list[Curve]:
    return [Curve(name, range(len(x)), x) for name, x in columns.items()]


def _drawn(columns: Columns, y: str, log: Any = "", x: str = "layer") -> Figure:
    return draw_panels({"": _curves(columns)}, x=x, y=y, log=log, marker="o")
