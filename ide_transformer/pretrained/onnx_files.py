"""Tensors of an ONNX file, by their names in the checkpoint."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import InputError
from .tensors import HeldTensor


def onnx_tensors(file: Path) -> dict[str, HeldTensor]:
    """The tensors of a file that `torch.onnx.export(..., dynamo=False)` wrote.

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
    return {name: HeldTensor(x) for name, x in tensors.items()}


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
    onnx, damaged = _package()
    if not file.is_file():
        raise InputError(f"There is no file {file}; give that of an ONNX model.")
    try:
        graph = onnx.load(file).graph
    except damaged as error:
        raise InputError(f"{file} is no ONNX file, or is damaged: {error}.") from None
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    return constants, list(graph.node)


def _package() -> tuple[ModuleType, type[Exception]]:
    """The package, and its exception for a file that it cannot parse."""
    try:
        import onnx
        import onnx.numpy_helper
        from google.protobuf.message import DecodeError
    except ImportError:
        raise InputError(
            "ONNX files need the package onnx: pip install 'ide_transformer[onnx]'."
        ) from None
    return onnx, DecodeError
