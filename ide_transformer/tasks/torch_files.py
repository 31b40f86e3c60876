"""Arrays from the files of `torch.save`, read without torch."""

import collections
import io
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError


# The kinds of storage, by the names of their classes in torch.
_DTYPES = {
    **{"BoolStorage": "?", "ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "<i2"},
    **{"IntStorage": "<i4", "LongStorage": "<i8"},
    **{"HalfStorage": "<f2", "FloatStorage": "<f4", "DoubleStorage": "<f8"},
}


def torch_arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The tensors of a dictionary that `torch.save` wrote, by their keys; errors call the file
    `name`. Nothing but tensors is read, so that a file can run no code."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            (index,) = (x for x in archive.namelist() if x.endswith("/data.pkl"))
            with archive.open(index) as file:
                found = _Reader(file, archive, index.removesuffix("data.pkl")).load()
    except Exception as error:  # zipfile and pickle have many
        raise _unreadable(name, error) from None
    arrays = found if type(found) is dict else {}
    if not arrays or not all(isinstance(x, np.ndarray) for x in arrays.values()):
        raise _unreadable(name, "it is no dictionary of tensors")
    return arrays


def _unreadable(name: str, why: object) -> InputError:
    return InputError(
        f"{name} is no file of tensors that torch.save wrote, or is damaged: {why}. Write the "
        "tensors with torch.save({'x': x, 'y': y}, path)."
    )


class _Kind(NamedTuple):
    dtype: np.dtype


class _Reader(pickle.Unpickler):
    """Reads tensors, and refuses all else that a pickle can name."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str):
        super().__init__(file)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _Kind(np.dtype(_DTYPES[name]))
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, kind, key, _, size = pid
        values = np.frombuffer(self.archive.read(f"{self.folder}data/{key}"), kind.dtype)
        if len(values) != size:
            raise ValueError(f"{len(values)} numbers in the place of {size}")
        return values


def _tensor(storage: Any, offset: int, shape: tuple, strides: tuple, *_: Any) -> np.ndarray:
    """A part of a storage; `as_strided` itself does not look where a storage ends."""
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise ValueError(f"a tensor of shape {shape} and strides {strides}")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= len(storage):
        raise ValueError("a tensor beyond the end of its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
