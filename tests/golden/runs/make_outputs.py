"""Store the logits of the two golden runs, next to their folders (see README.md)."""

from pathlib import Path

import numpy as np

from ide_transformer.training import build_task, load_run


for name in ("language", "images"):
    model, folder = load_run(Path(name))
    inputs = np.asarray(build_task(folder.load_config()).batch(0, 2, 0).inputs)
    np.savez(f"{name}.npz", inputs=inputs, logits=np.asarray(model(inputs)))
