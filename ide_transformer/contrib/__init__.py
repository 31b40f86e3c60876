"""Published blocks, example tasks and readings of trained models, as a user would write them.

Configurations find these classes by their names, as they find classes of the core."""

import importlib as _importlib
import typing as _typing


if _typing.TYPE_CHECKING:
    from .public import *
else:
    # Imported when a name is asked for: a command of contrib may need none of them.
    def __getattr__(name):
        if name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_importlib.import_module(f"{__name__}.public"), name)

    def __dir__():
        return dir(_importlib.import_module(f"{__name__}.public"))
