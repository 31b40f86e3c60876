"""Depth solved anew: one trained model with fewer and with more field evaluations."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree
from rich.console import Console

from ...depth import Read
from ...errors import InputError
from ...models import Text, TextEncoder, mean_vectors
from ...reporting.report import Report, write_report
from ...tasks import PretrainedTokenizer, shakespeare
from ...training import LoadedModel, evaluation_task, load_model
from .plot import plot_depth
from .report import DepthReport, depth_report
from .speeches import halves_of_speeches


def compare_depth(path: str, folder: Path, *, calibration: int, held_out: int) -> list[Report]:
    """Coarsens and refines the model in `path`, compares it with dropping layers by the rules
    in use, and writes tables and figures into `folder`.

    **Arguments:**

    - `path`: the folder of a run, or a checkpoint as `load_pretrained` takes it.
    - `calibration`, `held_out`: samples on which the steps are chosen and fitted, and on
      which the result is measured.

    **Raises:** `InputError` for a path without a model, or sizes that are not positive or
    larger than the text.
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
        problem.losses_of,
        read=problem.read,
        progress=lambda method: console.print(method, markup=False),
    )
    reports = _reports(path, problem, result, calibration, held_out)
    for report, name in zip(reports, ("", "budgets", "layers"), strict=True):
        write_report(folder / name, report)
    plot_depth(folder, result.rows)
    return reports


class _Problem(NamedTuple):
    """Inputs without targets, inputs to measure on, the loss of each of the latter from its
    outputs, what it is called, and what the task reads of the outputs."""

    calibration: PyTree[ArrayLike]
    held_out: PyTree[ArrayLike]
    losses_of: Callable[[Array], Float[Array, " samples"]]
    loss: str
    read: Read


def _problem(loaded: LoadedModel, calibration: int, held_out: int) -> _Problem:
    if isinstance(loaded.model, TextEncoder):
        return _speeches(loaded, loaded.model, calibration, held_out)
    task, step, seed = evaluation_task(loaded), 0, 0
    if loaded.run is not None:
        training = loaded.run.load_config().training
        # A batch of a step that the training did not reach.
        step, seed = training.steps, training.seed
    chosen_on = task.batch(step, calibration, seed)
    measured_on = next(task.held_out(held_out, samples=held_out))

    def losses_of(logits: Array) -> Float[Array, " samples"]:
        targets = jnp.asarray(measured_on.targets)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.mean(losses.reshape(losses.shape[0], -1), axis=1)

    return _Problem(
        chosen_on.inputs, measured_on.inputs, losses_of, "cross-entropy", _probabilities
    )


def _probabilities(logits: Array, inputs: PyTree[ArrayLike]) -> Array:
    """What a cross-entropy reads, as square roots: the squared distance between two of them is
    Hellinger's, to second order half the divergence of Kullback and Leibler."""
    return jnp.sqrt(jax.nn.softmax(logits, axis=-1))


# Of the cosine similarities in the loss of sentence embeddings, as in their training.
_SCALE = 20.0

# Speeches among which the other half is to be found, as a batch of the training.
_GROUP = 64


def _speeches(
    loaded: LoadedModel,
    model: TextEncoder,
    calibration: int,
    held_out: int,
) -> _Problem:
    """Speeches of Shakespeare: which second half belongs to a first half? The loss is that of
    the training of sentence embeddings, `-log softmax(20 cos)` of the right one among those of
    64 speeches (Henderson et al., arXiv 1705.00652)."""
    tokenizer = loaded.tokenizer
    assert isinstance(tokenizer, PretrainedTokenizer)
    pairs = halves_of_speeches(shakespeare())
    boundary = len(pairs) * 9 // 10
    for name, size, there in (
        ("calibration", calibration, 2 * boundary),
        ("held_out", held_out, len(pairs) - boundary),
    ):
        if size > there:
            raise InputError(
                f"compare_depth: {name}={size}, but Shakespeare has only {there} texts for "
                "that; give it fewer."
            )
    learned = np.linspace(0, boundary - 1, -(-calibration // 2)).astype(int)
    kept = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    # Neighbours come from the same scene; a batch should not.
    learned = np.random.default_rng(0).permutation(learned)
    # The texts are as those that are measured on, halves of either kind; what is done with
    # them does not know which belong together.
    texts = [half for i in learned for half in pairs[i]][:calibration]
    chosen_on = tokenizer.encode_batch(texts, model.context)
    both = [pairs[i][half] for half in (0, 1) for i in kept]
    measured_on = tokenizer.encode_batch(both, model.context)

    def losses_of(states: Array) -> Float[Array, " samples"]:
        vectors = mean_vectors(states, measured_on)
        losses = []
        for first in range(0, held_out, _GROUP):
            group = slice(first, min(first + _GROUP, held_out))
            similarity = vectors[:held_out][group] @ vectors[held_out:][group].T
            targets = jnp.arange(len(similarity))
            losses.append(
                optax.softmax_cross_entropy_with_integer_labels(_SCALE * similarity, targets)
            )
        return jnp.concatenate(losses)

    name = "of finding the other half of a speech among those of 64"
    return _Problem(chosen_on, measured_on, losses_of, name, _similarities)


def _similarities(states: Array, text: Text) -> Array:
    """What the loss of sentence embeddings reads: how alike each text is to each other one, as
    `_probabilities`."""
    vectors = mean_vectors(states, text)
    others = ~jnp.eye(len(vectors), dtype=bool)
    similarity = jnp.where(others, _SCALE * vectors @ vectors.T, -jnp.inf)
    # The derivative of a square root at zero, which the diagonal has, is infinite.
    return jnp.exp(jnp.where(others, jax.nn.log_softmax(similarity, axis=-1), -jnp.inf) / 2)


def _reports(
    path: str, problem: _Problem, result: DepthReport, calibration: int, held_out: int
) -> list[Report]:
    about = (
        f"The weights of {path} with fewer and with more field evaluations. Steps were chosen "
        f"and fitted on {calibration} samples without their targets; error (of what the loss "
        f"reads of the outputs, relative to the native solve) and loss ({problem.loss}) are "
        f"those of {held_out} held-out samples. Change is that of the loss against the native "
        "one, uncertainty its standard error over the samples, which are the same for both."
    )
    name = Path(path).name
    about_budgets = (
        "At each number of field evaluations the best coarsening against the best rule that "
        "drops layers; difference is its loss less that of the rule, with its standard error "
        "over the samples."
    )
    ranking = result.ranking
    ranks = ", ".join(f"{name} {value:.2f}" for name, value in ranking.correlations.items())
    about_layers = (
        "Defects of each layer, what the equation foretells of leaving it out (estimate), and "
        f"the error that this makes (damage). Spearman's correlation with it: {ranks}."
    )
    return [
        Report(f"depth of {name}", about, result.rows, "loss"),
        Report(f"budgets of {name}", about_budgets, result.budgets, "loss"),
        Report(f"layers of {name}", about_layers, ranking.layers, "damage"),
    ]
