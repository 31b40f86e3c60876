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
from ide_transformer.tasks import (
    AbstractTask,
    Batch,
    LanguageTask,
    PretrainedTokenizer,
    shakespeare,
)
from ide_transformer.training import LoadedModel, evaluation_task


# As in training sentence embeddings: the factor of similarities, and how many candidates there
# are for the other half of a speech.
_SCALE = 20.0
_GROUP = 64


# From outputs to the loss of each sample.
Losses = Callable[[PyTree[Array]], Float[Array, " samples"]]


class Problem(NamedTuple):
    """Inputs and a loss.

    - `calibration`: inputs to choose and fit by, without targets.
    - `held_out`: inputs to measure on.
    - `losses`: from the outputs for `held_out` to the loss of each sample.
    - `loss`: the name of the loss.
    - `read`: what the task reads of the outputs, see `Target`; the square roots of
      probabilities, if the outputs are distributions.
    - `calibration_losses`: from the outputs for `calibration` to the losses of its samples. It
      uses their targets, so only methods that say so use it.
    """

    calibration: PyTree[ArrayLike]
    held_out: PyTree[ArrayLike]
    losses: Losses
    loss: str = "loss"
    read: Quantity | None = None
    calibration_losses: Losses | None = None


def make_problem(
    loaded: LoadedModel, calibration: int, held_out: int, draw: int = 0, text: str | None = None
) -> Problem:
    """The problem of a model: the data of a run, Shakespeare for a checkpoint of a text model
    with a tokenizer, else random tokens or images and the distance from the native outputs.

    **Arguments:**

    - `calibration` and `held_out`: the numbers of samples.
    - `draw`: each number has other calibration samples and the same to measure on.
    - `text`: for a language model, measured on its last tenth.

    **Raises:** `InputError` for other models.
    """
    model = loaded.model
    if text is not None:
        return _of_text(loaded, calibration, held_out, draw, text)
    has_tokenizer = tokenizer_file(loaded.path).is_file()
    if loaded.run is not None or (
        models.is_built_as(model, models.LanguageModel) and has_tokenizer
    ):
        return _of_task(loaded, calibration, held_out, draw)
    texts = isinstance(model.inputs, models.TextInputs)
    if texts and isinstance(model.read_out, models.States) and has_tokenizer:
        return _speeches(model, loaded, calibration, held_out, draw)
    random = np.random.default_rng(0)
    # Calibration samples of later draws come behind those to measure on.
    samples = calibration * (draw + 1) + held_out

    def batches(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        first = samples - calibration if draw else 0
        return drawn[first : first + calibration], drawn[calibration:][:held_out]

    if texts:
        shape = samples, min(model.inputs.context, 128)
        drawn = random.integers(0, model.inputs.vocabulary, shape)
        return _imitation(model, batches(drawn), "random tokens")
    if isinstance(model.inputs, models.AbstractImageInputs):
        drawn = random.standard_normal((samples, *model.inputs.image_shape), np.float32)
        return _imitation(model, batches(drawn), "random images")
    raise InputError(
        f"there are no inputs for {loaded.path}, a model of {type(model.inputs).__name__}. "
        "Pass a run, or a checkpoint of a language model, a text encoder or a model of images."
    )


def _imitation(model: Model, batches: tuple[np.ndarray, np.ndarray], inputs: str) -> Problem:
    """Imitate the native outputs y*, with the loss `Σ |y - y*|² / Σ |y*|²` of each sample."""

    def losses_on(batch: np.ndarray) -> Losses:
        native = compiled_outputs(model, batch)

        def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
            off = jax.tree.map(jnp.subtract, outputs, native)
            return jax.vmap(square)(off) / jax.vmap(square)(native)

        return losses

    calibration, held_out = batches
    name = f"distance from the native outputs, {inputs}"
    losses = losses_on(held_out)
    return Problem(calibration, held_out, losses, name, None, losses_on(calibration))


def _of_text(
    loaded: LoadedModel, calibration: int, held_out: int, draw: int, text: str
) -> Problem:
    model = loaded.expected(models.LanguageModel, ", which predicts no text")
    context = min(model.inputs.context, 512)
    task = LanguageTask(text, context, tokenizer=loaded.tokenizer, validation=0.1)
    return _on(task, task.batch(0, calibration, draw), held_out, loaded)


def _of_task(loaded: LoadedModel, calibration: int, held_out: int, draw: int) -> Problem:
    """The data of a run or a language model."""
    # With training samples, also of a file of other data.
    task = evaluation_task(loaded._replace(foreign=False))
    if loaded.config is None:
        return _on(task, task.batch(0, calibration, draw), held_out, loaded)
    # A batch that the training did not reach.
    training = loaded.config.training
    batch = task.batch(training.steps + draw, calibration, training.seed)
    return _on(task, batch, held_out, loaded)


def _on(task: AbstractTask, chosen_on: Batch, held_out: int, loaded: LoadedModel) -> Problem:
    """To choose on a batch, and measure on held-out samples."""
    measured_on = next(task.held_out(held_out, samples=held_out))
    if isinstance(measured_on.inputs, models.Field):
        raise InputError(
            f"the samples of {loaded.path} share their points, so none can be taken out; give "
            "a run on arrays, such as data.name=burgers."
        )

    def part(sample: PyTree[Array]) -> tuple[Array, Array]:
        measured = task.loss.measure(*jax.tree.map(lambda x: x[None], sample))["loss"]
        return jnp.asarray(measured.total), jnp.asarray(measured.count)

    def losses_on(targets: PyTree[np.ndarray | Array]) -> Losses:
        def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
            """Their mean is the loss: a sample with more targets weighs more."""
            if task.loss.classifies:  # points may be on a grid
                axes = *np.shape(targets), outputs.shape[-1]
                outputs = outputs.reshape(axes)
            each = jax.tree.map(jnp.asarray, (outputs, targets))
            totals, counts = jax.vmap(part)(each)
            return totals * (len(totals) / jnp.maximum(jnp.sum(counts), 1))

        return losses

    return Problem(
        chosen_on.inputs,
        measured_on.inputs,
        losses_on(measured_on.targets),
        task.loss.label,
        _probabilities if task.loss.classifies else None,
        losses_on(chosen_on.targets),
    )


def _probabilities(logits: Array, inputs: PyTree[ArrayLike]) -> Array:
    """Square roots of the probabilities. Their squared distance is Hellinger's: to second order
    half of the Kullback–Leibler divergence."""
    return jnp.sqrt(jax.nn.softmax(logits, axis=-1))


def _speeches(
    model: Model[models.TextInputs, models.States],
    loaded: LoadedModel,
    calibration: int,
    held_out: int,
    draw: int,
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
    num_pairs = -(-calibration // 2)
    if draw:
        calibration_pairs = np.random.default_rng(draw).choice(
            boundary, num_pairs, replace=False
        )
    else:
        calibration_pairs = np.linspace(0, boundary - 1, num_pairs).astype(int)
    held_out_pairs = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    # Neighbours are from one scene.
    calibration_pairs = np.random.default_rng(0).permutation(calibration_pairs)
    texts = [half for i in calibration_pairs for half in pairs[i]][:calibration]
    both = [pairs[i][half] for half in (0, 1) for i in held_out_pairs]
    measured_on = tokenizer.encode_batch(both, model.inputs.context)

    def losses_of(firsts: Array, seconds: Array) -> Float[Array, " samples"]:
        losses = []
        for start in range(0, len(firsts), _GROUP):
            group = slice(start, start + _GROUP)
            similarity = _SCALE * (firsts[group] @ seconds[group].T)
            targets = jnp.arange(len(similarity))
            losses.append(optax.softmax_cross_entropy_with_integer_labels(similarity, targets))
        return jnp.concatenate(losses)

    def losses(states: Array) -> Float[Array, " samples"]:
        return losses_of(*jnp.split(models.mean_vectors(states, measured_on), 2))

    def calibration_losses(states: Array) -> Float[Array, " samples"]:
        vectors = models.mean_vectors(states, chosen_on)
        whole = len(vectors) // 2 * 2
        return losses_of(vectors[:whole:2], vectors[1:whole:2])

    name = "of finding the other half of a speech among 64 halves"
    chosen_on = tokenizer.encode_batch(texts, model.inputs.context)
    return Problem(chosen_on, measured_on, losses, name, _similarities, calibration_losses)


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
