"""The tensors that a table expects, and whether a checkpoint has them."""

from collections.abc import Iterable, Mapping, Set
from pathlib import Path

import numpy as np

from ..errors import InputError
from .placement import Placement
from .tensors import StoredTensor


def check_table(
    table: Iterable[Placement], tensors: Mapping[str, StoredTensor], ignored: Set[str], at: Path
) -> None:
    """Checks that the tensors of a checkpoint are those of the table.

    **Arguments:**

    - `ignored`: tensors that are not weights.
    - `at`: the checkpoint, for the error.

    **Raises:** `InputError` that lists all tensors which do not fit.
    """
    expected = expected_shapes(table)
    wrong = [
        *(
            f"{name} {shape}: missing"
            for name, shape in expected.items()
            if name not in tensors
        ),
        *(
            f"{name}: shape {tensors[name].shape}, expected {shape}"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ),
        *(
            f"{name} {tensor.shape}: not known"
            for name, tensor in tensors.items()
            if name not in expected and name not in ignored
        ),
    ]
    if wrong:
        raise InputError(
            f"{at}: the tensors do not fit the model that config.json describes:\n  "
            + "\n  ".join(wrong)
        )


def expected_shapes(table: Iterable[Placement]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name."""
    table = list(table)
    outputs = _outputs(table)
    shapes = {}
    for placement in table:
        shape = placement.permuted_shape(outputs.get(placement.name, 0))
        if placement.axes is not None:
            shape = tuple(shape[i] for i in np.argsort(placement.axes))
        shapes |= dict.fromkeys(placement.names(), shape)
    return shapes


def _outputs(table: list[Placement]) -> dict[str, int]:
    """The length of the last axis of each tensor that weights share by rows."""
    outputs: dict[str, int] = {}
    for placement in table:
        if placement.rows is not None:
            most = int(placement.rows.max()) + 1
            outputs[placement.name] = max(most, outputs.get(placement.name, 0))
    return outputs
