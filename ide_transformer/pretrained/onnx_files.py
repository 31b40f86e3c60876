"""Models from ONNX files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import DTypeLike

from ..errors import InputError
from ..models import AbstractModel
from .checkpoint import Checkpoint
from .options import Options
from .transfer import StoredTensor


# The most bytes of a protobuf message, and the most fields that a file may have. A model of a
# hundred layers has less.
_MOST_BYTES = 2**31
_MOST_FIELDS = 200_000


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
    tensors = _tensors(path)
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


def _tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of the file by their names in the checkpoint.

    Most have the same names as in PyTorch. The weight of a linear map over more than one axis
    is the constant of a matrix product: it is stored transposed, under a number, and its name
    is the module in the name of the product. Of equal tensors one is stored, and `Identity`
    nodes stand for the others.

    **Raises:** `InputError` without the package onnx, for a file that is not of ONNX, and for
    products that do not name their module, as other exporters write them.
    """
    held, nodes = _load(file)
    for node in nodes:
        if node.op_type == "Identity" and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
    tensors = {name: x for name, x in held.items() if not name.startswith(("onnx::", "/"))}
    for node in nodes:
        if node.op_type == "MatMul" and node.input[1] in held:
            tensors[f"{_module(node, file)}.weight"] = held[node.input[1]].T
    return {name: StoredTensor.held(x) for name, x in tensors.items()}


def _module(node: Any, file: Path) -> str:
    """`/vit/encoder/layer.0/output/dense/MatMul` is the product of that layer's `dense`."""
    root, *path = node.name.split("/")
    if root or len(path) < 2:
        raise InputError(
            f"{file}: the matrix product {node.name!r} does not name the module that it came "
            "from, so its weight has no name. Files written by torch.onnx.export(model, "
            "..., dynamo=False) do, before any optimiser renames them; or load the "
            "checkpoint itself by load_pretrained."
        )
    return ".".join(path[:-1])


def _load(file: Path) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The constants by name, and the nodes in the order of evaluation."""
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError:
        raise InputError(
            "ONNX files need the package onnx: pip install 'ide_transformer[onnx]'."
        ) from None
    if not file.is_file():
        raise InputError(f"There is no file {file}; give that of an ONNX model.")
    if file.stat().st_size > _MOST_BYTES:
        raise InputError(f"{file} has more than {_MOST_BYTES:,} bytes, which ONNX has not.")
    try:
        content = file.read_bytes()
        _check_fields(content, onnx.ModelProto.DESCRIPTOR)
        model = onnx.load_model_from_string(content)
        # Inside the folder of the file only, which the library checks.
        onnx.load_external_data_for_model(model, str(file.parent))
        constants = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}
    except InputError:
        raise
    except Exception as error:  # the library has many kinds
        reason = str(error).rstrip(".")
        raise InputError(f"{file} is no ONNX file, or is damaged: {reason}.") from None
    return constants, list(model.graph.node)


def _check_fields(content: bytes, kind: Any) -> None:
    """Refuses a message of very many parts: each may take a hundred times its bytes once it is
    parsed. `kind` says which fields are messages themselves."""
    left, messages = _MOST_FIELDS, [(0, len(content), kind)]

    def varint(at):
        """A number in groups of 7 bits, and where it ends."""
        number, shift = content[at] & 127, 0
        while content[at] > 127:
            at, shift = at + 1, shift + 7
            if shift > 63:
                raise ValueError("a number does not end")
            number |= (content[at] & 127) << shift
        return number, at + 1

    while messages:
        at, end, kind = messages.pop()
        while at < end:
            left -= 1
            if not left:
                raise ValueError(f"it has more than {_MOST_FIELDS:,} fields")
            tag, at = varint(at)
            number, wire = tag >> 3, tag & 7
            if wire == 0:
                at = varint(at)[1]
            elif wire == 2:
                length, at = varint(at)
                field = kind.fields_by_number.get(number)
                if field is not None and field.message_type is not None:
                    messages.append((at, at + length, field.message_type))
                at += length
            elif wire in (1, 5):
                at += 8 if wire == 1 else 4
            else:
                raise ValueError(f"a field of kind {wire}")
