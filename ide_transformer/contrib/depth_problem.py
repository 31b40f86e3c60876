"""Inputs and a loss for any trained model, to choose and measure shorter models by."""

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
from ide_transformer.pretrained import find_pretrained, tokenizer_file
from ide_transformer.tasks import LanguageTask, PretrainedTokenizer, shakespeare
from ide_transformer.training import LoadedModel, evaluation_task


# The factor of cosines in the softmax, as in training sentence embeddings.
_SCALE = 20.0
# The number of candidates for the other half of a speech.
_GROUP = 64


# Maps outputs to the loss of each sample.
Losses = Callable[[PyTree[Array]], Float[Array, " samples"]]


class Problem(NamedTuple):
    """Inputs and a loss.

    - `calibration`: inputs to choose and fit by, without targets.
    - `held_out`: inputs to measure on.
    - `losses`: maps the outputs for `held_out` to the loss of each sample.
    - `loss`: the name of the loss.
    - `read`: the part of the outputs that the task reads, see `Target`; for distributions, the
      square roots of probabilities.
    - `calibration_losses`: maps the outputs for `calibration` to the loss of each sample. It
      uses targets, so only methods that document it may call it.
    """

    calibration: PyTree[ArrayLike]
    held_out: PyTree[ArrayLike]
    losses: Losses
    loss: str = "loss"
    read: Quantity | None = None
    calibration_losses: Losses | None = None

    def require_calibration_losses(self, where: str) -> Losses:
        """Raises `InputError`, which begins with `where`, if there are no losses."""
        if self.calibration_losses is None:
            raise InputError(f"{where}: the problem has no targets for calibration samples.")
        return self.calibration_losses


def make_problem(
    loaded: LoadedModel, calibration: int, held_out: int, draw: int = 0, text: str | None = None
) -> Problem:
    """The problem of a model: the data of a run, Shakespeare for a checkpoint of a text model
    with a tokenizer, else random tokens or images and the distance from the native outputs.

    **Arguments:**

    - `loaded`: the model.
    - `calibration`, `held_out`: the numbers of samples.
    - `draw`: the draw of the calibration samples. Held-out samples are equal for all draws.
    - `text`: a text for a language model; its last tenth is held out.

    **Raises:** `InputError` for other models.
    """
    model = loaded.model
    is_language_model = models.is_built_as(model, models.LanguageModel)
    has_tokenizer = tokenizer_file(find_pretrained(loaded.path)).is_file()
    if text is not None or loaded.run is not None or (is_language_model and has_tokenizer):
        return _task_problem(loaded, calibration, held_out, draw, text)
    has_texts = isinstance(model.inputs, models.TextInputs)
    if has_texts and isinstance(model.read_out, models.States) and has_tokenizer:
        return _retrieval_problem(model, loaded, calibration, held_out, draw)
    random = np.random.default_rng(0)
    # Calibration samples of later draws follow the held-out samples.
    samples = calibration * (draw + 1) + held_out
    if has_texts:
        name = "random tokens"
        shape = samples, min(model.inputs.context, 128)
        inputs = random.integers(0, model.inputs.vocabulary, shape)
    elif isinstance(model.inputs, models.AbstractImageInputs):
        name = "random images"
        inputs = random.standard_normal((samples, *model.inputs.image_shape), np.float32)
    else:
        raise InputError(
            f"there are no inputs for {loaded.path}, a model of {type(model.inputs).__name__}; "
            "pass a run, or a checkpoint of a language model, a text encoder or an image model."
        )
    first = samples - calibration if draw else 0
    calibration_inputs = inputs[first : first + calibration]
    return _imitation_problem(model, calibration_inputs, inputs[calibration:][:held_out], name)


def _imitation_problem(
    model: Model, calibration: np.ndarray, held_out: np.ndarray, inputs: str
) -> Problem:
    """To imitate the native outputs y*, with the loss `Σ |y - y*|² / Σ |y*|²` of a sample."""

    def losses_on(batch: np.ndarray) -> Losses:
        native = compiled_outputs(model, batch)

        def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
            differences = jax.tree.map(jnp.subtract, outputs, native)
            return jax.vmap(square)(differences) / jax.vmap(square)(native)

        return losses

    name = f"distance from the native outputs, {inputs}"
    losses = losses_on(held_out)
    return Problem(calibration, held_out, losses, name, None, losses_on(calibration))


def _task_problem(
    loaded: LoadedModel, calibration: int, held_out: int, draw: int, text: str | None
) -> Problem:
    """To learn the data of a run or a language model, or a text."""
    step = 0
    seed = draw
    if text is not None:
        model = loaded.require(models.LanguageModel)
        context = min(model.inputs.context, 512)
        task = LanguageTask(text, context, tokenizer=loaded.tokenizer, validation=0.1)
    else:
        # Data from another file are divided, so that there are training samples.
        task = evaluation_task(loaded._replace(foreign=False))
        if loaded.config is not None:
            # A batch that the training did not reach.
            step = loaded.config.training.steps + draw
            seed = loaded.config.training.seed
    calibration_batch = task.batch(step, calibration, seed)
    held_out_batch = next(task.held_out(held_out, samples=held_out))
    if isinstance(held_out_batch.inputs, models.Field):
        raise InputError(
            f"the samples of {loaded.path} share their points, so they cannot be separated; "
            "pass a run on arrays, such as data.name=burgers."
        )

    def measure_sample(sample: PyTree[Array]) -> tuple[Array, Array]:
        measured = task.loss.measure(*jax.tree.map(lambda x: x[None], sample))["loss"]
        return jnp.asarray(measured.total), jnp.asarray(measured.count)

    def losses_on(targets: PyTree[np.ndarray | Array]) -> Losses:
        def losses(outputs: PyTree[Array]) -> Float[Array, " samples"]:
            """Their mean is the loss: a sample with more targets weighs more."""
            if task.loss.classifies:  # points may be on a grid
                axes = *np.shape(targets), outputs.shape[-1]
                outputs = outputs.reshape(axes)
            samples = jax.tree.map(jnp.asarray, (outputs, targets))
            totals, counts = jax.vmap(measure_sample)(samples)
            return totals * (len(totals) / jnp.maximum(jnp.sum(counts), 1))

        return losses

    return Problem(
        calibration_batch.inputs,
        held_out_batch.inputs,
        losses_on(held_out_batch.targets),
        task.loss.label,
        _probabilities if task.loss.classifies else None,
        losses_on(calibration_batch.targets),
    )


def _probabilities(logits: Array, inputs: PyTree[ArrayLike]) -> Array:
    """The square roots of probabilities. Their squared distance is Hellinger's, which to second
    order is half of the Kullback–Leibler divergence."""
    return jnp.sqrt(jax.nn.softmax(logits, axis=-1))


def _retrieval_problem(
    model: Model[models.TextInputs, models.States],
    loaded: LoadedModel,
    calibration: int,
    held_out: int,
    draw: int,
) -> Problem:
    """To find the second half of a speech of Shakespeare among 64 halves. The loss is
    `-log softmax(20 cos)`, as in training sentence embeddings (Henderson et al., arXiv
    1705.00652)."""
    tokenizer = cast(PretrainedTokenizer, loaded.tokenizer)
    pairs = halves_of_speeches(shakespeare())
    boundary = len(pairs) * 9 // 10
    if calibration > 2 * boundary or held_out > len(pairs) - boundary:
        raise InputError(
            f"calibration={calibration} and held_out={held_out} must be at most "
            f"{2 * boundary} and {len(pairs) - boundary}, the texts of Shakespeare."
        )
    num_pairs = -(-calibration // 2)
    if draw:
        calibration_pairs = np.random.default_rng(draw).choice(
            boundary, num_pairs, replace=False
        )
    else:
        calibration_pairs = np.linspace(0, boundary - 1, num_pairs).astype(int)
    held_out_pairs = np.linspace(boundary, len(pairs) - 1, held_out).astype(int)
    # Shuffled, since neighbours are from one scene.
    calibration_pairs = np.random.default_rng(0).permutation(calibration_pairs)
    halves = [half for i in calibration_pairs for half in pairs[i]][:calibration]
    calibration_texts = tokenizer.encode_batch(halves, model.inputs.context)
    halves = [pairs[i][half] for half in (0, 1) for i in held_out_pairs]
    held_out_texts = tokenizer.encode_batch(halves, model.inputs.context)

    def losses_of(firsts: Array, seconds: Array) -> Float[Array, " samples"]:
        losses = []
        for start in range(0, len(firsts), _GROUP):
            group = slice(start, start + _GROUP)
            similarity = _SCALE * (firsts[group] @ seconds[group].T)
            targets = jnp.arange(len(similarity))
            losses.append(optax.softmax_cross_entropy_with_integer_labels(similarity, targets))
        return jnp.concatenate(losses)

    def losses(states: Array) -> Float[Array, " samples"]:
        return losses_of(*jnp.split(models.mean_vectors(states, held_out_texts), 2))

    def calibration_losses(states: Array) -> Float[Array, " samples"]:
        vectors = models.mean_vectors(states, calibration_texts)
        end = len(vectors) // 2 * 2
        return losses_of(vectors[:end:2], vectors[1:end:2])

    name = "of finding the other half of a speech among 64 halves"
    return Problem(
        calibration_texts, held_out_texts, losses, name, _similarities, calibration_losses
    )


def halves_of_speeches(plays: str) -> list[tuple[str, str]]:
    """Speeches of 300 to 500 characters from plays in Markdown, without speakers and stage
    directions, each split into halves of equally many words."""
    pairs = []
    for speech in plays.split("\n\n"):
        lines = (line.strip() for line in speech.splitlines())
        words = " ".join(line for line in lines if not line.startswith(tuple("*_#"))).split()
        middle = len(words) // 2
        pairs.append((" ".join(words[:middle]), " ".join(words[middle:])))
    return [pair for pair in pairs if 300 < len(" ".join(pair)) < 500]


def _similarities(states: Array, text: models.Text) -> Array:
    """The square roots of the softmax of similarities between texts, see `_probabilities`."""
    vectors = models.mean_vectors(states, text)
    differ = ~jnp.eye(len(vectors), dtype=bool)
    similarity = jnp.where(differ, _SCALE * vectors @ vectors.T, -jnp.inf)
    # Not `sqrt`, whose derivative is infinite at zero, on the diagonal.
    return jnp.exp(jnp.where(differ, jax.nn.log_softmax(similarity, axis=-1), -jnp.inf) / 2)
