"""Models from checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import DTypeLike

from ..errors import InputError
from ..models import AbstractModel
from .checkpoint import Checkpoint
from .find import find_pretrained
from .onnx_files import onnx_tensors
from .options import Options


def load_pretrained(path: str | Path, *, dtype: DTypeLike | None = None) -> AbstractModel:
    """The model of a checkpoint. Solved by its own scheme, it gives the outputs of the
    original library; `with_solver` solves the same weights by another scheme.

    **Arguments:**

    - `path`: a folder in the layout of Hugging Face, `config.json` and `model.safetensors` or
      its shards; a NumPy archive of glassllm; or the name of a package with weights, see
      `find_pretrained`.
    - `dtype`: the dtype of the weights. Default: that of the checkpoint, at least float32.

    **Raises:** `InputError` where there is no checkpoint, for an unknown kind of model or
    option, and for tensors that are missing, unknown or of another shape.
    """
    return Checkpoint.open(find_pretrained(path)).model(dtype)


def load_onnx(
    path: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    dtype: DTypeLike | None = None,
) -> AbstractModel:
    """The model of an ONNX file that `torch.onnx.export(..., dynamo=False)` made from a model
    of the original library. It has the same weights as the one that `load_pretrained` reads
    from the checkpoint. Tested with files of ViT and DeiT, and of DINOv2 without SwiGLU if
    exported with `do_constant_folding=False`, which leaves its positions whole. Needs the
    `onnx` extra.

    **Arguments:**

    - `path`: the file.
    - `options`: the content of `config.json`. Default: the `config.json` next to the file.
    - `dtype`: see `load_pretrained`.

    **Raises:** `InputError` as `load_pretrained` does, without the package `onnx`, and for
    files of other exporters, whose weights have lost their names.
    """
    path = Path(path)
    tensors = onnx_tensors(path)
    if options is not None:
        given = Options(options, Path("options"))
    elif (path.parent / "config.json").is_file():
        given = Options.read(path.parent)
    else:
        raise InputError(
            f"{path} holds weights, but not their options, and has no config.json next to "
            "it; put that of the checkpoint there, or give load_onnx(path, options={...})."
        )
    return Checkpoint.check(given, tensors, path).model(dtype)
