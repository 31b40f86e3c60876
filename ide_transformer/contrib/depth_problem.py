"""Finds inputs and a loss for any trained model."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer import models
from ide_transformer.contrib.meshes import Quantity
from ide_transformer.dynamics import square
from ide_transformer.errors import InputError
from ide_transformer.models import Model, compiled_outputs
from ide_transformer.pretrained import tokenizer_file
from ide_transformer.tasks import PretrainedTokenizer, shakespeare
from ide_transformer.training import LoadedModel, evaluation_task


# As in training sentence embeddings: the factor of similarities, and how many candidates there
# are for the other half of a speech.
_SCALE = 20.0
_GROUP = 64


class Problem(NamedTuple):
    """Inputs and a loss.

    - `calibration`: inputs to choose and fit by, without targets.
    - `held_out`: inputs to measure on.
    - `losses`: from the outputs for `held_out` to the loss of each sample.
    - `loss`: the name of the loss.
    - `read`: what the task reads of the outputs, see `Target`.
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
    """The problem of a model: the data of a run, Shakespeare for a checkpoint of a text model
    with a tokenizer, else random tokens or images and the distance from the native outputs.

    **Arguments:** `calibration` and `held_out`, the numbers of samples.

    **Raises:** `InputError` for other models.
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
        f"there are no inputs for {loaded.path}, a model of {type(model.inputs).__name__}. "
        "Give a run, or a checkpoint of a language model, a text encoder or a model of images; "
        "for others call measure_coarsening(model, Problem(…))."
    )


def _imitation(model: Model, batches: list[np.ndarray], inputs: str) -> Problem:
    """Imitate the native outputs y*, with the loss `Σ |y - y*|² / Σ |y*|²` of each sample."""
    calibration, held_out = batches
    native = compiled_outputs(model, held_out)

    def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
        off = jax.tree.map(jnp.subtract, outputs, native)
        return jax.vmap(square)(off) / jax.vmap(square)(native)

    return Problem(calibration, held_out, losses, f"distance from the native outputs, {inputs}")


def _of_task(loaded: LoadedModel, calibration: int, held_out: int) -> Problem:
    """The data of a run or a language model."""
    # With training samples, also of a file of other data.
    task = evaluation_task(loaded._replace(foreign=False))
    if loaded.config is None:
        chosen_on = task.batch(0, calibration, 0)
    else:
        # A batch that the training did not reach.
        training = loaded.config.training
        chosen_on = task.batch(training.steps, calibration, training.seed)
    measured_on = next(task.held_out(held_out, samples=held_out))
    if isinstance(measured_on.inputs, models.Field):
        raise InputError(
            f"the samples of {loaded.path} share their points, so none can be taken out; give "
            "a run on arrays, such as data.name=burgers."
        )

    def part(sample: PyTree[Array]) -> tuple[Array, Array]:
        measured = task.loss.measure(*jax.tree.map(lambda x: x[None], sample))["loss"]
        return jnp.asarray(measured.total), jnp.asarray(measured.count)

    def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
        """Their mean is the loss: a sample with more targets weighs more."""
        if task.loss.classifies:  # points may be on a grid
            axes = *np.shape(measured_on.targets), outputs.shape[-1]
            outputs = outputs.reshape(axes)
        each = jax.tree.map(jnp.asarray, (outputs, measured_on.targets))
        totals, counts = jax.vmap(part)(each)
        return totals * (len(totals) / jnp.maximum(jnp.sum(counts), 1))

    read = _probabilities if task.loss.classifies else None
    return Problem(chosen_on.inputs, measured_on.inputs, losses, task.loss.label, read)


def _probabilities(logits: Array, inputs: PyTree[ArrayLike]) -> Array:
    """Square roots of the probabilities. Their squared distance is Hellinger's: to second order
    half of the Kullback–Leibler divergence."""
    return jnp.sqrt(jax.nn.softmax(logits, axis=-1))


def _speeches(
    model: Model[models.TextInputs, models.States],
    loaded: LoadedModel,
    calibration: int,
    held_out: int,
) -> Problem:
    """Find the second half of a speech of Shakespeare among 64. The loss is
    `-log softmax(20 cos)`, as in training sentence embeddings (Henderson et al., arXiv
    1705.00652)."""
    tokenizer = cast(PretrainedTokenizer, loaded.tokenizer)
    pairs = halves_of_speeches(shakespeare())
    boundary = len(pairs) * 9 // 10
    if calibration > 2 * boundary or held_out > len(pairs) - boundary:
        raise InputError(
            f"calibration={calibration}, held_out={held_out}: give at most {2 * boundary} and "
            f"{len(pairs) - boundary}, the texts of Shakespeare."
        )
    learned = np.linspace(0, boundary - 1, -(-calibration // 2)).astype(int)
    kept = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    # Neighbours are from one scene.
    learned = np.random.default_rng(0).permutation(learned)
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

    name = "of finding the other half of a speech among 64 halves"
    chosen_on = tokenizer.encode_batch(texts, model.inputs.context)
    return Problem(chosen_on, measured_on, losses, name, _similarities)


def halves_of_speeches(plays: str) -> list[tuple[str, str]]:
    """Speeches of 300 to 500 characters from plays in Markdown, without speakers and stage
    directions, each in two halves with equally many words."""
    pairs = []
    for speech in plays.split("\n\n"):
        lines = (line.strip() for line in speech.splitlines())
        words = " ".join(line for line in lines if not line.startswith(tuple("*_#"))).split()
        middle = len(words) // 2
        pairs.append((" ".join(words[:middle]), " ".join(words[middle:])))
    return [pair for pair in pairs if 300 < len(" ".join(pair)) < 500]


def _similarities(states: Array, text: models.Text) -> Array:
    """Square roots of the softmax of similarities between texts, see `_probabilities`."""
    vectors = models.mean_vectors(states, text)
    others = ~jnp.eye(len(vectors), dtype=bool)
    similarity = jnp.where(others, _SCALE * vectors @ vectors.T, -jnp.inf)
    # The derivative of `sqrt` is infinite at zero, on the diagonal.
    return jnp.exp(jnp.where(others, jax.nn.log_softmax(similarity, axis=-1), -jnp.inf) / 2)
