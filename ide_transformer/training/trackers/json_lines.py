import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, final

from ...errors import naming
from .tracker import AbstractTracker


@final
class JsonLines(AbstractTracker):
    """`metrics.jsonl`: one JSON object a line, which every run writes. A line is in the file
    when `log` returns.

    **Arguments:**

    - `path`: the file, to which is appended.

    **Raises:** `OSError`, from `log`, for a line that cannot be written.
    """

    configurable: ClassVar[bool] = False

    def __init__(self, path: Path):
        self._path = path

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._file = self._path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        # NaN is not JSON; a reader should not stumble over the line that reports it.
        finite = {k: v if math.isfinite(v) else None for k, v in values.items()}
        with naming(self._path):
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written was said
            self._file.close()
