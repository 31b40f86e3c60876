"""Transformers as integro-differential equations: the field, the schemes, the training."""

import importlib as _importlib
import typing as _typing
from importlib.metadata import version as _version


if _typing.TYPE_CHECKING:
    from . import (
        contrib as contrib,
        dynamics as dynamics,
        equation as equation,
        integration as integration,
        models as models,
        pretrained as pretrained,
        solvers as solvers,
        tasks as tasks,
        testing as testing,
        training as training,
    )
    from .public import *
    from .training import load_model as load_model, load_run as load_run, train as train
else:
    # Loaded lazily, so that `--help` is fast and solving needs neither Optax nor YAML.
    _FOLDERS = ("contrib", "dynamics", "equation", "integration", "models", "pretrained")
    _FOLDERS += ("solvers", "tasks", "testing", "training")
    _OF_TRAINING = ("load_model", "load_run", "train")

    def _home(name):
        home = "training" if name in _OF_TRAINING else "public"
        return _importlib.import_module(f".{home}", __name__)

    def __getattr__(name):
        if name in _FOLDERS:
            return _importlib.import_module(f".{name}", __name__)
        if name.startswith("_") or not hasattr(_home(name), name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_home(name), name)

    def __dir__():
        public = {name for name in vars(_home("")) if not name.startswith("_")}
        return sorted({"__version__", *_FOLDERS, *_OF_TRAINING, *public})


__version__ = _version("ide_transformer")
