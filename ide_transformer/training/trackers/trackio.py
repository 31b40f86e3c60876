import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from .tracker import AbstractTracker, require


@final
class Trackio(AbstractTracker):
    """A data base of Trackio on this machine; `trackio show --project NAME` shows it. Nothing
    leaves the machine, unless the variables of Trackio's own say so.

    The run has the name of its folder. Where it goes on from a checkpoint, the lines after it
    are there twice: Trackio does not forget.

    **Arguments:**

    - `project`: in which the run appears beside others.

    **Raises:** `InputError` where trackio is not installed.
    """

    def __init__(self, project: str = "ide_transformer"):
        require("trackio", "trackio")
        self._project = project

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self._run = importlib.import_module("trackio").init(
            self._project,
            folder.resolve().name,
            config=dict(config),
            resume="allow" if step else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
