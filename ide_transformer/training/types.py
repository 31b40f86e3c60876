"""Types of the values in configurations."""

import re
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field


def in_int32(count: int) -> int:
    if count >= 2**31:
        raise ValueError("Input should be less than 2147483648, since runs count in int32")
    return count


def _below_one(fraction: float) -> float:
    if np.float32(fraction) == 1:
        raise ValueError("Input should be less than 1; float32 takes it for 1")
    return fraction


def _number_of_key(key: Any) -> Any:
    return int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,10}", key) else key


def folder_name(name: str) -> str:
    """The name, if a folder can have it on every system.

    **Raises:** `ValueError`.
    """
    devices = r"(?i:con|prn|aux|nul|com\d|lpt\d)(\..*)?"
    name_of_folder = r"[A-Za-z0-9][A-Za-z0-9._-]{0,98}[A-Za-z0-9_-]|[A-Za-z0-9]"
    if re.fullmatch(devices, name) or not re.fullmatch(name_of_folder, name):
        raise ValueError(
            "it names a folder; take 1 to 100 letters, digits, '-', '_' and '.', with a letter "
            "or digit first and no '.' last, and no name of a device such as nul"
        )
    return name


Count = Annotated[int, Field(gt=0), AfterValidator(in_int32)]
CountOrZero = Annotated[int, Field(ge=0), AfterValidator(in_int32)]
# A count that is a key, which YAML and JSON give as a text.
CountAsKey = Annotated[
    int, Field(ge=0), AfterValidator(in_int32), BeforeValidator(_number_of_key)
]
Fraction = Annotated[float, Field(ge=0, lt=1), AfterValidator(_below_one)]
# Keys of JAX take 32 bits of a seed; others would draw the same weights.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# The name of a folder of results.
FolderName = Annotated[str, AfterValidator(folder_name)]
