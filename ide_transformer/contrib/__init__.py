"""Published blocks, example tasks and studies of trained models, written as users would.

Configurations find these classes by name, like those of the core."""

import importlib as _importlib
import typing as _typing


if _typing.TYPE_CHECKING:
    from .public import *
else:
    # Imported at first use, since a command of contrib may need none of them.
    def __getattr__(name):
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_importlib.import_module(f"{__name__}.public"), name)

    def __dir__():
        return dir(_importlib.import_module(f"{__name__}.public"))
