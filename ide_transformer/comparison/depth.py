"""Depth solved anew: one trained model with fewer and with more field evaluations."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree
from rich.console import Console

from ..depth import DepthReport, depth_report, plot_depth
from ..errors import InputError
from ..models import TextEncoder, mean_vectors
from ..tasks import CheckpointTokenizer, shakespeare
from ..training import LoadedModel, load_model, task_of
from .report import Report, write_report


def compare_depth(path: str, folder: Path, *, calibration: int, held_out: int) -> list[Report]:
    """Coarsens and refines the model in `path`, compares it with dropping layers by the rules
    in use, and writes tables and figures into `folder`.

    **Arguments:**

    - `path`: the folder of a run, or a checkpoint as `load_pretrained` takes it.
    - `calibration`, `held_out`: samples on which the steps are chosen and fitted, and on
      which the result is measured.

    **Raises:** `InputError` for a path without a model, or sizes that are not positive.
    """
    for name, size in (("calibration", calibration), ("held_out", held_out)):
        if size < 1:
            raise InputError(f"compare_depth: {name}={size}; give it at least one sample.")
    console = Console(highlight=False, soft_wrap=True)
    loaded = load_model(path, [])
    problem = _problem(loaded, calibration, held_out)
    result = depth_report(
        loaded.model,
        problem.calibration,
        problem.held_out,
        problem.loss_of,
        progress=lambda method: console.print(method, markup=False),
    )
    reports = _reports(path, problem, result, calibration, held_out)
    write_report(folder, reports[0])
    write_report(folder / "layers", reports[1])
    plot_depth(folder, result.rows)
    return reports


class _Problem(NamedTuple):
    """Inputs without targets, inputs to measure on, the loss of outputs for the latter, and
    what it is called."""

    calibration: PyTree[ArrayLike]
    held_out: PyTree[ArrayLike]
    loss_of: Callable[[Array], Float[Array, ""]]
    loss: str


def _problem(loaded: LoadedModel, calibration: int, held_out: int) -> _Problem:
    if isinstance(loaded.model, TextEncoder):
        return _speeches(loaded, loaded.model, calibration, held_out)
    task, step, seed = task_of(loaded), 0, 0
    if loaded.run is not None:
        training = loaded.run.load_config().training
        # A batch of a step that the training did not reach.
        step, seed = training.steps, training.seed
    chosen_on = task.batch(step, calibration, seed)
    measured_on = next(task.held_out(held_out, samples=held_out))

    def loss_of(logits: Array) -> Float[Array, ""]:
        targets = jnp.asarray(measured_on.targets)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, targets))

    return _Problem(chosen_on.inputs, measured_on.inputs, loss_of, "cross-entropy")


# Of the cosine similarities in the loss of sentence embeddings, as in their training.
_SCALE = 20.0


def _speeches(
    loaded: LoadedModel, model: TextEncoder, calibration: int, held_out: int
) -> _Problem:
    """Speeches of Shakespeare: which second half belongs to a first half? The loss is that of
    the training of sentence embeddings, `-log softmax(20 cos)` of the right one among all
    (Henderson et al., arXiv 1705.00652)."""
    tokenizer = loaded.tokenizer
    assert isinstance(tokenizer, CheckpointTokenizer)
    halves = [_halves(speech) for speech in shakespeare().split("\n\n")]
    pairs = [pair for pair in halves if 300 < len(" ".join(pair)) < 700]
    boundary = len(pairs) * 9 // 10
    learned = np.linspace(0, boundary - 1, calibration).astype(int)
    kept = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    chosen_on = tokenizer.encode_batch([pairs[i][0] for i in learned], model.context)
    both = [pairs[i][0] for i in kept] + [pairs[i][1] for i in kept]
    text = tokenizer.encode_batch(both, model.context)

    def loss_of(states: Array) -> Float[Array, ""]:
        vectors = mean_vectors(states, text)
        similarity = vectors[:held_out] @ vectors[held_out:].T
        targets = jnp.arange(held_out)
        losses = optax.softmax_cross_entropy_with_integer_labels(_SCALE * similarity, targets)
        return jnp.mean(losses)

    return _Problem(chosen_on, text, loss_of, "of finding the other half of a speech")


def _halves(speech: str) -> tuple[str, str]:
    """The words of a speech, without the speaker and directions, which have marks."""
    lines = [line.strip() for line in speech.splitlines()]
    words = " ".join(line for line in lines if not line.startswith(("*", "_", "#"))).split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _reports(
    path: str, problem: _Problem, result: DepthReport, calibration: int, held_out: int
) -> list[Report]:
    about = (
        f"The weights of {path} with fewer and with more field evaluations. Steps were chosen "
        f"and fitted on {calibration} samples without their targets; error (of the outputs, "
        f"relative to those of the native solve) and loss ({problem.loss}) are those of "
        f"{held_out} held-out samples."
    )
    ranking = result.ranking
    ranks = ", ".join(f"{name} {value:.2f}" for name, value in ranking.correlations.items())
    about_layers = (
        "Defects of each layer, what the equation foretells of leaving it out (estimate), and "
        f"the output error that this makes (damage). Spearman's correlation with it: {ranks}."
    )
    return [
        Report(f"depth of {Path(path).name}", about, result.rows, "loss"),
        Report(f"layers of {Path(path).name}", about_layers, ranking.layers, "damage"),
    ]
