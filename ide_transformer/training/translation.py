"""Translations by the model of a run, and their BLEU."""

import functools as ft
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..arguments import NonNegativeFloat, PositiveInt, checked
from ..errors import InputError
from ..models import EncoderDecoder, generate_beam, generate_greedy
from ..tasks import Part, VersesEnEs
from .evaluation import LoadedModel, check_part, evaluation_task


# Texts that are translated at once.
_BATCH = 32


class Translation(NamedTuple):
    """A text, a translation by a human being, and what the model writes."""

    source: str
    reference: str
    written: str


@checked
def translated(
    loaded: LoadedModel,
    *,
    samples: PositiveInt | None = None,
    part: Part = "test",
    beams: PositiveInt = 1,
    length_penalty: NonNegativeFloat = 1.0,
) -> list[Translation]:
    """The translations of held-out texts by the model of a run.

    **Arguments:**

    - `samples`: about so many, evenly spread; default: all.
    - `part`: of the data of the run.
    - `beams`: 1 takes the most likely token each time (`generate_greedy`), more search by
      `generate_beam`.
    - `length_penalty`: see `generate_beam`.

    **Raises:** `InputError` for a run that learned no translation.
    """
    task = None if loaded.config is None else evaluation_task(loaded)
    if not isinstance(task, VersesEnEs):
        raise InputError(
            f"{loaded.path} learned no translation; give a run of configs/verses_en_es.yaml."
        )
    check_part(task, part, samples)
    model = loaded.expected(EncoderDecoder, ", which translates no text")
    write = generate_greedy
    if beams > 1:
        write = ft.partial(generate_beam, beams=beams, length_penalty=length_penalty)
    found = []
    for batch in task.held_out(_BATCH, samples, part):
        source = batch.inputs.source
        prompt = jnp.full((len(source.tokens), 1), task.end)
        tokens = write(model, source, prompt, task.context - 1, end=task.end)
        rows = source.tokens, np.asarray(batch.targets), np.asarray(tokens)[:, 1:]
        found += map(Translation, *map(task.texts, rows))
    return found


def bleu(translations: Sequence[Translation]) -> tuple[float, str]:
    """The BLEU of translations in per cent, by sacrebleu, and how it was computed.

    **Raises:** `InputError` where sacrebleu is not installed.

    Source: Papineni et al., ACL 2002; Post, "A call for clarity in reporting BLEU scores",
    2018, arXiv 1804.08771.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError:
        raise InputError(
            "BLEU is computed by sacrebleu, which is not installed: pip install "
            "'ide_transformer[translation]'."
        ) from None
    metric = BLEU()
    written = [translation.written for translation in translations]
    score = metric.corpus_score(written, [[x.reference for x in translations]])
    return score.score, str(metric.get_signature())
