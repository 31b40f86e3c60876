"""The task on which a coarsened model is measured."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from .. import models
from ..dynamics import Quantity
from ..dynamics.meshes import square
from ..errors import InputError
from ..models import Model
from ..models.compiled import compiled_outputs
from ..pretrained import tokenizer_file
from ..tasks import PretrainedTokenizer, shakespeare
from ..training import LoadedModel, evaluation_task


# Of the loss of sentence embeddings, as in their training: the factor of the similarities, and
# the speeches among which the other half is to be found.
_SCALE = 20.0
_GROUP = 64


class Problem(NamedTuple):
    """Inputs and a loss.

    - `calibration`, `held_out`: batches of inputs. All choices and fits are made on the first,
      without targets; the second is for measuring.
    - `losses`: from the outputs for `held_out` to the loss of each sample.
    - `loss`: what that loss is called.
    - `read`: what the task reads of the outputs; see `dynamics.Target`.
    """

    calibration: PyTree[ArrayLike]
    held_out: PyTree[ArrayLike]
    losses: Callable[[PyTree[Array]], Float[Array, " samples"]]
    loss: str = "loss"
    read: Quantity | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """The numbers of samples of both batches."""
        return len(jax.tree.leaves(self.calibration)[0]), len(jax.tree.leaves(self.held_out)[0])


def make_problem(loaded: LoadedModel, calibration: int, held_out: int) -> Problem:
    """The task of a model, with so many samples to choose by and to measure on.

    A run has the data that it was trained on. A checkpoint of a model of texts has those of
    Shakespeare, if there is a tokenizer. Without one the tokens are random, and for a model of
    images the images are; then the loss is the distance from the native outputs.
    """
    model = loaded.model
    there = tokenizer_file(loaded.path).is_file()
    if loaded.run is not None or (models.is_built_as(model, models.LanguageModel) and there):
        return _of_task(loaded, calibration, held_out)
    texts = isinstance(model.inputs, models.TextInputs)
    if texts and isinstance(model.read_out, models.States) and there:
        return _speeches(model, loaded, calibration, held_out)
    random = np.random.default_rng(0)
    samples = calibration + held_out
    if texts:
        shape = samples, min(model.inputs.context, 128)
        drawn = random.integers(0, model.inputs.vocabulary, shape)
        return _imitation(model, np.split(drawn, [calibration]), "random tokens")
    if isinstance(model.inputs, models.AbstractImageInputs):
        drawn = random.standard_normal((samples, *model.inputs.image_shape), np.float32)
        return _imitation(model, np.split(drawn, [calibration]), "random images")
    raise InputError(
        f"there are no inputs for {loaded.path}, a model of "
        f"{type(model.inputs).__name__}. Give a run, or a checkpoint of a language model, a "
        "text encoder or a model of images; for others measure_coarsening(model, Problem(…))."
    )


def _imitation(model: Model, batches: list[np.ndarray], inputs: str) -> Problem:
    """The task to have the native outputs, `Σ |y - y*|² / Σ |y*|²` of each sample."""
    calibration, held_out = batches
    native = compiled_outputs(model, held_out)

    def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
        off = jax.tree.map(jnp.subtract, outputs, native)
        return jax.vmap(square)(off) / jax.vmap(square)(native)

    return Problem(calibration, held_out, losses, f"distance from the native outputs, {inputs}")


def _of_task(loaded: LoadedModel, calibration: int, held_out: int) -> Problem:
    """The task of a run, or that of a language model."""
    # Of another file, too, some samples are there to choose by.
    task = evaluation_task(loaded._replace(foreign=False))
    if loaded.config is None:
        chosen_on = task.batch(0, calibration, 0)
    else:
        # A batch of a step that the training did not reach.
        training = loaded.config.training
        chosen_on = task.batch(training.steps, calibration, training.seed)
    measured_on = next(task.held_out(held_out, samples=held_out))
    if isinstance(measured_on.inputs, models.Field):
        raise InputError(
            f"the samples of {loaded.path} are functions at common points, "
            "so no sample can be taken out. Give a run whose inputs are arrays with a row for "
            "each sample, such as those of data.name=burgers."
        )

    def part(sample: PyTree[Array]) -> tuple[Array, Array]:
        measured = task.loss.measure(*jax.tree.map(lambda x: x[None], sample))["loss"]
        return jnp.asarray(measured.total), jnp.asarray(measured.count)

    def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
        """The part of each sample in the loss of the batch, times the number of samples, so
        that their mean is the loss: one with more targets that are counted weighs more."""
        if task.loss.classifies:  # at points that may be on a grid
            axes = *np.shape(measured_on.targets), outputs.shape[-1]
            outputs = outputs.reshape(axes)
        each = jax.tree.map(jnp.asarray, (outputs, measured_on.targets))
        totals, counts = jax.vmap(part)(each)
        return totals * (len(totals) / jnp.maximum(jnp.sum(counts), 1))

    read = _probabilities if task.loss.classifies else None
    return Problem(chosen_on.inputs, measured_on.inputs, losses, task.loss.label, read)


def _probabilities(logits: Array, inputs: PyTree[ArrayLike]) -> Array:
    """The probabilities that a cross-entropy reads, as square roots: the squared distance
    between two of them is Hellinger's, to second order half the divergence of Kullback and
    Leibler."""
    return jnp.sqrt(jax.nn.softmax(logits, axis=-1))


def _speeches(
    model: Model[models.TextInputs, models.States],
    loaded: LoadedModel,
    calibration: int,
    held_out: int,
) -> Problem:
    """Speeches of Shakespeare: which second half belongs to a first half? The loss is that of
    the training of sentence embeddings, `-log softmax(20 cos)` of the right one among those of
    64 speeches (Henderson et al., arXiv 1705.00652)."""
    tokenizer = cast(PretrainedTokenizer, loaded.tokenizer)
    pairs = halves_of_speeches(shakespeare())
    boundary = len(pairs) * 9 // 10
    if calibration > 2 * boundary or held_out > len(pairs) - boundary:
        raise InputError(
            f"calibration={calibration}, held_out={held_out}, but there are "
            f"only {2 * boundary} and {len(pairs) - boundary} texts of Shakespeare for that."
        )
    learned = np.linspace(0, boundary - 1, -(-calibration // 2)).astype(int)
    kept = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    # Neighbours come from the same scene; a batch should not.
    learned = np.random.default_rng(0).permutation(learned)
    # Halves of either kind, as in the texts that are measured on. The calibration does not
    # know which belong together.
    texts = [half for i in learned for half in pairs[i]][:calibration]
    both = [pairs[i][half] for half in (0, 1) for i in kept]
    measured_on = tokenizer.encode_batch(both, model.inputs.context)

    def losses(states: Array) -> Float[Array, " samples"]:
        firsts, seconds = jnp.split(models.mean_vectors(states, measured_on), 2)
        losses = []
        for start in range(0, held_out, _GROUP):
            group = slice(start, start + _GROUP)
            similarity = _SCALE * (firsts[group] @ seconds[group].T)
            targets = jnp.arange(len(similarity))
            losses.append(optax.softmax_cross_entropy_with_integer_labels(similarity, targets))
        return jnp.concatenate(losses)

    name = "of finding the other half of a speech among those of 64"
    chosen_on = tokenizer.encode_batch(texts, model.inputs.context)
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
    # Long enough to say something, short enough that a batch has little padding.
    return [pair for pair in pairs if 300 < len(" ".join(pair)) < 500]


def _similarities(states: Array, text: models.Text) -> Array:
    """The similarities between texts that the loss of sentence embeddings reads, in the form
    of `_probabilities`."""
    vectors = models.mean_vectors(states, text)
    others = ~jnp.eye(len(vectors), dtype=bool)
    similarity = jnp.where(others, _SCALE * vectors @ vectors.T, -jnp.inf)
    # The derivative of a square root at zero, which the diagonal has, is infinite.
    return jnp.exp(jnp.where(others, jax.nn.log_softmax(similarity, axis=-1), -jnp.inf) / 2)
