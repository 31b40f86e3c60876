"""The options of a checkpoint, `config.json`."""

import json
from pathlib import Path
from typing import Any

from ..errors import InputError


_REQUIRED = object()


class Fields:
    """The options of a checkpoint, each asked for by name.

    **Arguments:**

    - `values`: name to value.
    - `file`: where they stand, for errors.
    """

    def __init__(self, values: dict[str, Any], file: Path):
        self.values = values
        self.file = file

    @classmethod
    def read(cls, folder: Path) -> "Fields":
        """Those of `config.json`.

        **Raises:** `InputError` where it is missing or no JSON object.
        """
        file = folder / "config.json"
        if not file.is_file():
            raise InputError(
                f"{folder} has no config.json; it is not the folder of a checkpoint."
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file} is no JSON: {error}.") from None
        if not isinstance(values, dict):
            raise InputError(f"{file} holds no object of options.")
        return cls(values, file)

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of an option; without a default it has to be there."""
        if name in self.values:
            return self.values[name]
        if default is _REQUIRED:
            raise InputError(f"{self.file} has no {name}, which this model needs.")
        return default

    def allow(self, name: str, *values: Any) -> Any:
        """The value of an option, which has to be one of `values`; the first is its default.

        An option that is not understood must not be ignored: the outputs would be wrong.
        """
        value = self.get(name, values[0])
        if value not in values:
            known = ", ".join(map(repr, values))
            raise InputError(
                f"{self.file}: {name} = {value!r} is not supported. Supported: {known}."
            )
        return value

    def choose(self, name: str, choices: dict[str, Any], default: str | None = None) -> Any:
        """What an option means, by a table of its values."""
        value = self.get(name) if default is None else self.get(name, default)
        if value not in choices:
            known = ", ".join(choices)
            raise InputError(
                f"{self.file}: {name} = {value!r} is not supported. Supported: {known}."
            )
        return choices[value]
