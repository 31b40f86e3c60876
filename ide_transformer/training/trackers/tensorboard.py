import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from .tracker import AbstractTracker, require


@final
class Tensorboard(AbstractTracker):
    """Event files of TensorBoard, in the folder `tensorboard` of the run, by the package
    tensorboardX. `tensorboard --logdir runs` shows all runs.

    Where a run goes on from a checkpoint, TensorBoard drops what was logged after it.

    **Raises:** `InputError` where tensorboardX is not installed.
    """

    def __init__(self):
        require("tensorboardX", "tensorboard")

    def start(self, folder: Path, config: Mapping[str, Any], step: int) -> None:
        package = importlib.import_module("tensorboardX")
        self._writer = package.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        lines = [f"    {key}: {value}" for key, value in config.items()]
        self._writer.add_text("configuration", "\n".join(lines), step)

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
