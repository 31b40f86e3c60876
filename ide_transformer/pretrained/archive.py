"""NumPy archives, the files of the package glassllm."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from .options import Options
from .transfer import StoredTensor


_CONFIG = "__config__"


def read_archive(path: Path) -> tuple[Options, Mapping[str, StoredTensor]]:
    """The options and the tensors of an archive.

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
    tensors = {name: StoredTensor.held(array) for name, array in arrays.items()}
    return Options({**options, "model_type": "glassllm"}, path), tensors


def write_archive(path: Path, options: Options, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes an archive that glassllm reads."""
    values = {name: x for name, x in options.values.items() if name != "model_type"}
    arrays = {_CONFIG: np.array(json.dumps(values)), **tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # a path would get the suffix .npz
        np.savez_compressed(file, allow_pickle=False, **arrays)
