"""Translates texts with the model of a run, and measures BLEU."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ide_transformer import tasks
from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.contrib.encoder_decoder import EncoderDecoder, generate_greedy
from ide_transformer.contrib.verses import VersesEnEs
from ide_transformer.errors import InputError
from ide_transformer.packages import require
from ide_transformer.training import LoadedModel, checked_part, evaluation_task


# Texts that are translated at once.
_BATCH = 32


class Translation(NamedTuple):
    """A text, a human translation, and what the model writes."""

    source: str
    reference: str
    written: str


@checked
def translated(
    loaded: LoadedModel, *, samples: PositiveInt | None = None, part: tasks.Part = "test"
) -> list[Translation]:
    """Translates held-out texts with the model of a run, by `generate_greedy`.

    **Arguments:**

    - `samples`: how many, evenly spread; default: all.
    - `part`: of the data of the run.

    **Raises:** `InputError` for a run that learned no translation.
    """
    task = None if loaded.config is None else evaluation_task(loaded)
    if not isinstance(task, VersesEnEs):
        raise InputError(
            f"{loaded.path} learned no translation; give a run of configs/verses_en_es.yaml."
        )
    part = checked_part(task, part, samples)
    model = loaded.expected(EncoderDecoder, ", which translates no text")
    found = []
    for batch in task.held_out(_BATCH, samples, part):
        source = batch.inputs.source
        prompt = np.full((len(source.tokens), 1), task.end)
        tokens = generate_greedy(model, source, prompt, task.context - 1, end=task.end)
        rows = source.tokens, np.asarray(batch.targets), np.asarray(tokens)[:, 1:]
        found += map(Translation, *map(task.texts, rows))
    return found


def bleu(translations: Sequence[Translation]) -> tuple[float, str]:
    """The BLEU of translations in per cent, and the signature of sacrebleu.

    **Raises:** `InputError` if sacrebleu is not installed.

    Source: Papineni et al., ACL 2002; Post, "A call for clarity in reporting BLEU scores",
    2018, arXiv 1804.08771.
    """
    require("sacrebleu", "translation", "BLEU is computed by")
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    written = [translation.written for translation in translations]
    score = metric.corpus_score(written, [[x.reference for x in translations]])
    return score.score, str(metric.get_signature())
