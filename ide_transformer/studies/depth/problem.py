"""The task on which a coarsened model is measured."""

import functools as ft
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ...depth import Quantity
from ...errors import InputError
from ...models import AbstractModel, Text, TextEncoder, mean_vectors
from ...tasks import PretrainedTokenizer, shakespeare
from ...training import LoadedModel, evaluation_task


# Of the cosine similarities in the loss of sentence embeddings, as in their training.
_SCALE = 20.0

# Speeches among which the other half is to be found, as a batch of the training.
_GROUP = 64

# Characters of a speech: long enough to say something, short enough that a batch of them has
# little padding.
_LEAST, _MOST = 300, 500


class Problem(NamedTuple):
    """Inputs and a loss.

    - `calibration`, `held_out`: batches of inputs. All choices and fits are made on the first,
      without targets; the second is for measuring.
    - `losses`: from the outputs for `held_out` to the loss of each sample.
    - `loss`: what that loss is called.
    - `read`: what the task reads of the outputs; see `depth.Target`.
    """

    calibration: PyTree[ArrayLike]
    held_out: PyTree[ArrayLike]
    losses: Callable[[PyTree[Array]], Float[Array, " samples"]]
    loss: str = "loss"
    read: Quantity | None = None


@ft.singledispatch
def make_problem(
    model: AbstractModel, loaded: LoadedModel, calibration: int, held_out: int
) -> Problem:
    """The task of a model, with so many samples to choose by and to measure on."""
    task, step, seed = evaluation_task(loaded), 0, 0
    if loaded.run is not None:
        training = loaded.run.load_config().training
        # A batch of a step that the training did not reach.
        step, seed = training.steps, training.seed
    chosen_on = task.batch(step, calibration, seed)
    measured_on = next(task.held_out(held_out, samples=held_out))

    def losses(logits: Array) -> Float[Array, " samples"]:
        targets = jnp.asarray(measured_on.targets)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
        return jnp.mean(losses.reshape(losses.shape[0], -1), axis=1)

    inputs = chosen_on.inputs, measured_on.inputs
    return Problem(*inputs, losses, "cross-entropy", _probabilities)


def _probabilities(logits: Array, inputs: PyTree[ArrayLike]) -> Array:
    """The probabilities that a cross-entropy reads, as square roots: the squared distance
    between two of them is Hellinger's, to second order half the divergence of Kullback and
    Leibler."""
    return jnp.sqrt(jax.nn.softmax(logits, axis=-1))


@make_problem.register(TextEncoder)
def _speeches(
    model: TextEncoder, loaded: LoadedModel, calibration: int, held_out: int
) -> Problem:
    """Speeches of Shakespeare: which second half belongs to a first half? The loss is that of
    the training of sentence embeddings, `-log softmax(20 cos)` of the right one among those of
    64 speeches (Henderson et al., arXiv 1705.00652)."""
    tokenizer = cast(PretrainedTokenizer, loaded.tokenizer)
    pairs = halves_of_speeches(shakespeare())
    boundary = len(pairs) * 9 // 10
    for name, size, there in (
        ("calibration", calibration, 2 * boundary),
        ("held_out", held_out, len(pairs) - boundary),
    ):
        if size > there:
            raise InputError(
                f"study_coarsening: {name}={size}, but Shakespeare has only {there} texts for "
                "that; give it fewer."
            )
    learned = np.linspace(0, boundary - 1, -(-calibration // 2)).astype(int)
    kept = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    # Neighbours come from the same scene; a batch should not.
    learned = np.random.default_rng(0).permutation(learned)
    # Halves of either kind, as in the texts that are measured on. The calibration does not
    # know which belong together.
    texts = [half for i in learned for half in pairs[i]][:calibration]
    both = [pairs[i][half] for half in (0, 1) for i in kept]
    measured_on = tokenizer.encode_batch(both, model.context)

    def losses(states: Array) -> Float[Array, " samples"]:
        firsts, seconds = jnp.split(mean_vectors(states, measured_on), 2)
        losses = []
        for start in range(0, held_out, _GROUP):
            group = slice(start, start + _GROUP)
            similarity = _SCALE * (firsts[group] @ seconds[group].T)
            targets = jnp.arange(len(similarity))
            losses.append(optax.softmax_cross_entropy_with_integer_labels(similarity, targets))
        return jnp.concatenate(losses)

    name = "of finding the other half of a speech among those of 64"
    chosen_on = tokenizer.encode_batch(texts, model.context)
    return Problem(chosen_on, measured_on, losses, name, _similarities)


def halves_of_speeches(plays: str) -> list[tuple[str, str]]:
    """Speeches of 300 to 500 characters from plays in Markdown, each in two halves of equally
    many words, without the speaker and the directions, which have marks."""
    pairs = []
    for speech in plays.split("\n\n"):
        lines = (line.strip() for line in speech.splitlines())
        words = " ".join(line for line in lines if not line.startswith(tuple("*_#"))).split()
        middle = len(words) // 2
        pairs.append((" ".join(words[:middle]), " ".join(words[middle:])))
    return [pair for pair in pairs if _LEAST < len(" ".join(pair)) < _MOST]


def _similarities(states: Array, text: Text) -> Array:
    """The similarities between texts that the loss of sentence embeddings reads, in the form
    of `_probabilities`."""
    vectors = mean_vectors(states, text)
    others = ~jnp.eye(len(vectors), dtype=bool)
    similarity = jnp.where(others, _SCALE * vectors @ vectors.T, -jnp.inf)
    # The derivative of a square root at zero, which the diagonal has, is infinite.
    return jnp.exp(jnp.where(others, jax.nn.log_softmax(similarity, axis=-1), -jnp.inf) / 2)
