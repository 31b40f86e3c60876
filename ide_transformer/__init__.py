"""Transformers as integro-differential equations: the field, the schemes, the training."""

import importlib as _importlib
import typing as _typing
from importlib.metadata import version as _version


if _typing.TYPE_CHECKING:
    from .public import *
    from .training import load_model as load_model, load_run as load_run, train as train
else:
    # Imported when a name is asked for: the help of a command needs nothing, and who only
    # solves needs neither optax nor YAML.
    _OF_TRAINING = ("load_model", "load_run", "train")

    def _home(name):
        home = "training" if name in _OF_TRAINING else "public"
        return _importlib.import_module(f".{home}", __name__)

    def __getattr__(name):
        if name.startswith("_") or not hasattr(_home(name), name):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_home(name), name)

    def __dir__():
        public = {name for name in vars(_home("")) if not name.startswith("_")}
        return sorted({*globals(), *public, *_OF_TRAINING})


__version__ = _version("ide_transformer")
