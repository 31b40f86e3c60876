"""The checkpoints of the package glassllm, NumPy archives: a small Llama with rotary pairs
that are neighbours, `[in, out]` matrices and tied embeddings."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...models import LanguageModel
from ..family import Family
from ..fields import Fields
from ..parts import neighbours_to_halves
from ..placement import Placement
from ..tensor_files import HeldTensor, StoredTensor
from .llama import build as build_llama


_CONFIG = "__config__"


def read_archive(path: Path) -> tuple[Fields, Mapping[str, StoredTensor]]:
    """The options and tensors of an archive.

    **Raises:** `InputError` where it is damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged or no NumPy archive: {error}.") from None
    if _CONFIG not in arrays:
        raise InputError(
            f"{path} has no {_CONFIG}; of NumPy archives only those of glassllm are known."
        )
    options = json.loads(str(arrays.pop(_CONFIG)))
    tensors = {name: HeldTensor(array) for name, array in arrays.items()}
    return Fields({**options, "model_type": "glassllm"}, path), tensors


def write_archive(path: Path, fields: Fields, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes an archive that glassllm reads."""
    options = {name: x for name, x in fields.values.items() if name != "model_type"}
    arrays = {_CONFIG: np.array(json.dumps(options)), **tensors}
    np.savez_compressed(path, allow_pickle=False, **arrays)


def build(fields: Fields, names: Set[str]) -> LanguageModel:
    width = fields.get("d_model")
    llama = {
        "hidden_size": width,
        "intermediate_size": int(8 * width / 3),
        "num_hidden_layers": fields.get("n_layers"),
        "num_attention_heads": fields.get("n_heads"),
        "num_key_value_heads": fields.get("n_kv_heads"),
        "vocab_size": fields.get("vocab_size"),
        "max_position_embeddings": fields.get("max_len"),
        "rope_theta": fields.get("rope_base"),
        "rms_norm_eps": fields.get("eps"),
        "tie_word_embeddings": True,
    }
    options = Fields(llama, fields.file)
    return build_llama(options, names, attention_options=lambda fields: {"bias": False})


def table(model: LanguageModel) -> Iterator[Placement]:
    attention, feed_forward = model.control.blocks  # pyright: ignore
    yield Placement(model.embedding, "E")
    layer = "blocks.{layer}"
    head_features = attention.query.weight.shape[-1] // attention.heads
    for part, heads, name in (
        (attention.query, attention.heads, "W_Q"),
        (attention.key, attention.key_value_heads, "W_K"),
    ):
        rows = neighbours_to_halves(heads, head_features, head_features)
        yield Placement(part.weight, f"{layer}.attn.{name}", rows=rows)
    yield Placement(attention.value.weight, f"{layer}.attn.W_V")
    yield Placement(attention.output.weight, f"{layer}.attn.W_O")
    yield Placement(feed_forward.gate.weight, f"{layer}.ffn.W1")
    yield Placement(feed_forward.inner.weight, f"{layer}.ffn.W3")
    yield Placement(feed_forward.outer.weight, f"{layer}.ffn.W2")
    yield Placement(attention.normalization.gain, f"{layer}.norm1.gamma")
    yield Placement(feed_forward.normalization.gain, f"{layer}.norm2.gamma")
    yield Placement(model.output_normalization.gain, "norm_f.gamma")  # pyright: ignore


FAMILIES = {"glassllm": Family(build, table)}
