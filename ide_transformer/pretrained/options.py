"""Options of a checkpoint, as `config.json` holds them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError
from .json_files import read_json


_REQUIRED = object()


@dataclass(frozen=True)
class Options:
    """Options of a checkpoint, each asked for by name.

    **Arguments:**

    - `values`: name to value.
    - `file`: the file that holds them, for errors.
    - `spellings`: the file's own name of an option that it calls differently; see `renamed`.
    """

    values: Mapping[str, Any]
    file: Path
    spellings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Options":
        """The options in `config.json`.

        **Raises:** `InputError` where it is missing or is no JSON object.
        """
        file = folder / "config.json"
        if not file.is_file():
            raise InputError(
                f"{folder} has no config.json; it is not the folder of a checkpoint."
            )
        return cls(read_json(file), file)

    def renamed(self, **spellings: str) -> "Options":
        """The same options under other names: after `renamed(hidden_size="dim")` the option
        `hidden_size` is the one that the file calls `dim`. Errors name `dim`."""
        return Options(self.values, self.file, spellings)

    def get(self, name: str, default: Any = _REQUIRED) -> Any:
        """The value of an option.

        **Raises:** `InputError` where it is missing and has no default.
        """
        name = self.spellings.get(name, name)
        if name in self.values:
            return self.values[name]
        if default is _REQUIRED:
            raise InputError(f"{self.file} has no {name}, which this model needs.")
        return default

    def allow(self, name: str, *values: Any) -> Any:
        """The value of an option, which must be one of `values`; the first is its default.

        An option that is not understood must not be ignored: the outputs would be wrong.
        """
        value = self.get(name, values[0])
        if value not in values:
            raise self._not_supported(name, value, map(repr, values))
        return value

    def choose(self, name: str, choices: Mapping[str, Any], default: Any = _REQUIRED) -> Any:
        """The meaning of an option, looked up in a table of its values."""
        value = self.get(name, default)
        if value not in choices:
            raise self._not_supported(name, value, choices)
        return choices[value]

    def _not_supported(self, name: str, value: Any, supported: Iterable[str]) -> InputError:
        return InputError(
            f"{self.file}: {self.spellings.get(name, name)} = {value!r} is not supported. "
            f"Supported: {', '.join(supported)}."
        )
